//! The output contract as a JSON Schema. Tests check every line against it.

use std::{collections::HashMap, sync::OnceLock};

use anyhow::{Context, Result, anyhow, bail, ensure};
use jsonschema::Validator;
use serde_json::{Value, json};

static SCHEMA: &str = include_str!("../../docs/events.schema.json");

/// The contract with one validator for each type of line. The whole schema tests every line for every type,
/// which is slow.
struct Contract {
    by_type: HashMap<String, Validator>,
}

impl Contract {
    fn new() -> Result<Self> {
        let mut schema: Value = serde_json::from_str(SCHEMA)?;
        // As `#/$defs/sealed` requires: readers accept unknown fields, but this version prints only
        // fields of the schema.
        schema["unevaluatedProperties"] = Value::Bool(false);
        let types = schema["properties"]["type"]["enum"].take();
        let rules = schema["allOf"].take();
        let mut by_type = HashMap::new();
        for rule in rules.as_array().context("allOf")? {
            let of = &rule["if"]["properties"]["type"]["const"];
            ensure!(rule.as_object().is_some_and(|parts| parts.len() == 2));
            schema["properties"]["type"] = json!({ "const": of });
            schema["allOf"] = json!([rule["then"]]);
            let name = of.as_str().context("a rule for each type, and no other")?;
            by_type.insert(name.to_owned(), jsonschema::validator_for(&schema)?);
        }
        ensure!(Some(by_type.len()) == types.as_array().map(Vec::len));
        Ok(Self { by_type })
    }

    fn shared() -> Result<&'static Self> {
        static CONTRACT: OnceLock<Result<Contract, String>> = OnceLock::new();
        CONTRACT
            .get_or_init(|| Self::new().map_err(|e| format!("{e:#}")))
            .as_ref()
            .map_err(|error| anyhow!("docs/events.schema.json: {error}"))
    }

    fn check(&self, value: &Value) -> Result<()> {
        let of = value["type"].as_str().unwrap_or_default();
        let validator = self.by_type.get(of).context("no such type")?;
        if validator.is_valid(value) {
            return Ok(());
        }
        let errors = validator.iter_errors(value);
        let errors: Vec<_> = errors
            .map(|error| format!("{error} (at {})", error.instance_path()))
            .collect();
        bail!("{}", errors.join("; "))
    }
}

/// Checks lines against the schema and returns them parsed.
///
/// # Errors
///
/// Names the first line that violates the contract, and why.
pub fn check<'l>(lines: impl IntoIterator<Item = &'l str>) -> Result<Vec<Value>> {
    let contract = Contract::shared()?;
    let mut parsed = Vec::new();
    for line in lines {
        let value: Value =
            serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        if let Err(error) = contract.check(&value) {
            bail!("docs/events.schema.json: {error}: {line}");
        }
        parsed.push(value);
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole schema, optionally sealed.
    fn whole(sealed: bool) -> Result<Validator> {
        let mut schema: Value = serde_json::from_str(SCHEMA)?;
        if sealed {
            schema["unevaluatedProperties"] = Value::Bool(false);
        }
        Ok(jsonschema::validator_for(&schema)?)
    }

    fn lost() -> Value {
        json!({
            "v": 1, "type": "lost", "time": "2026-01-31T12:00:00.000001Z", "mono_ns": 1,
            "events": 2, "reason": "the ring was full",
        })
    }

    #[test]
    fn each_validator_agrees_with_the_whole_schema() -> Result<()> {
        let mut lines = vec![lost(), json!({}), json!([]), json!({ "type": "other" })];
        for (field, value) in [
            ("v", json!(2)),
            ("type", json!("state")),
            ("type", json!(1)),
            ("events", json!(-1)),
            ("reason", Value::Null),
            ("unnamed", json!(1)),
            ("time", json!("yesterday")),
        ] {
            let mut line = lost();
            line[field] = value;
            lines.push(line);
        }
        let mut short = lost();
        short.as_object_mut().context("an object")?.remove("events");
        lines.push(short);
        let (sealed, contract) = (whole(true)?, Contract::shared()?);
        for line in &lines {
            assert_eq!(
                contract.check(line).is_ok(),
                sealed.is_valid(line),
                "{line}"
            );
        }
        assert_eq!(
            lines.iter().filter(|line| sealed.is_valid(line)).count(),
            1,
            "one of them is right"
        );
        Ok(())
    }

    #[test]
    fn a_reader_accepts_unknown_fields() -> Result<()> {
        let mut line = lost();
        line["unnamed"] = json!(1);
        assert!(whole(false)?.is_valid(&line));
        assert!(check([line.to_string().as_str()]).is_err());
        Ok(())
    }
}
