//! The output contract as a JSON Schema: every line ever printed is held against it.

use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail};
use jsonschema::Validator;
use serde_json::Value;

static SCHEMA: &str = include_str!("../../docs/events.schema.json");

fn validator() -> Result<&'static Validator> {
    static VALIDATOR: OnceLock<Result<Validator, String>> = OnceLock::new();
    VALIDATOR
        .get_or_init(|| {
            let mut schema: Value = serde_json::from_str(SCHEMA).map_err(|e| e.to_string())?;
            // What `#/$defs/sealed` says: a reader must bear fields that it does not know, but this
            // version prints none that the schema does not name.
            schema["unevaluatedProperties"] = Value::Bool(false);
            jsonschema::validator_for(&schema).map_err(|e| e.to_string())
        })
        .as_ref()
        .map_err(|error| anyhow!("docs/events.schema.json: {error}"))
}

/// Holds lines against the schema; they come back parsed.
///
/// # Errors
///
/// The first line that is not one object of the contract, and why.
pub fn check<'l>(lines: impl IntoIterator<Item = &'l str>) -> Result<Vec<Value>> {
    let validator = validator()?;
    let mut parsed = Vec::new();
    for line in lines {
        let value: Value =
            serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        if let Some(error) = validator.iter_errors(&value).next() {
            bail!(
                "docs/events.schema.json: {error} (at {}): {line}",
                error.instance_path()
            );
        }
        parsed.push(value);
    }
    Ok(parsed)
}
