//! A panic while the terminal is the screen of `synprobe top`: `tests/top/` looks at what is left.

use synprobe::verbs::top::session::ScreenSession;

#[allow(clippy::panic)]
fn main() -> std::io::Result<()> {
    let _session = ScreenSession::begin()?;
    let drawing = std::thread::spawn(|| -> () { panic!("a panic on purpose") });
    if let Err(panic) = drawing.join() {
        std::panic::resume_unwind(panic);
    }
    Ok(())
}
