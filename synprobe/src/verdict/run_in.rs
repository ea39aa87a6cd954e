//! Commands for another network namespace.

/// A command as it runs from the namespace of this host's first process. `name`: what people call the
/// namespace; a name that is not known is left out.
pub fn run_in(name: Option<&str>, command: &str) -> String {
    let Some(name) = name.filter(|name| *name != "host") else {
        return command.to_owned();
    };
    if let Some(pid) = name.strip_prefix("pid ") {
        let pid: String = pid.chars().take_while(char::is_ascii_digit).collect();
        return format!("nsenter -t {pid} -n {command}");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match name.chars().all(plain) {
        true => format!("ip netns exec {name} {command}"),
        false => command.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_runs_where_it_is_meant_to() {
        assert_eq!(run_in(None, "ss -tn"), "ss -tn");
        assert_eq!(run_in(Some("host"), "ss -tn"), "ss -tn");
        assert_eq!(run_in(Some("blue"), "ss -tn"), "ip netns exec blue ss -tn");
        assert_eq!(
            run_in(Some("pid 77 (a b)"), "ss -tn"),
            "nsenter -t 77 -n ss -tn"
        );
        assert_eq!(run_in(Some("a; b"), "ss -tn"), "ss -tn");
    }
}
