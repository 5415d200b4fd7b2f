//! What a unit of a build's work costs, as a file: measured on one machine, planned with on any.

use crate::failure::Failure;
use roxanne_builder::scale::Rates;
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Seconds a unit, by the names that [`read`] asks for.
pub(crate) fn to_json(rates: &Rates) -> Value {
    json!({
        "vectors": rates.vectors, "read": rates.read, "assign_visit": rates.assign_visit, "unevenness": rates.unevenness,
        "leaf_pair": rates.leaf_pair, "leaf_pairs": rates.leaf_pairs, "merge": rates.merge, "prune": rates.prune, "train": rates.train, "order": rates.order,
        "write": rates.write, "byte_written": rates.byte_written, "byte_read": rates.byte_read,
    })
}

/// The rates in a file of what `plan --time --json` prints, or of its `rates` alone.
pub(crate) fn read(path: &Path) -> Result<Rates, Failure> {
    let text = fs::read_to_string(path).map_err(Failure::io(path, "read the rates"))?;
    let wrong = |what: &str| {
        let advice = "save what `roxanne plan INPUT --time --json` prints";
        Failure::input(format!("{}: {what}; {advice}", path.display()))
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| wrong(&format!("no JSON ({error})")))?;
    let rates = value.get("rates").unwrap_or(&value);
    let number = |name: &str| {
        let number = rates[name].as_f64().filter(|number| *number >= 0.0 && number.is_finite());
        number.ok_or_else(|| wrong(&format!("no rate {name:?} of 0 or more")))
    };
    Ok(Rates {
        vectors: rates["vectors"].as_u64().filter(|&n| n > 0).ok_or_else(|| wrong("no count \"vectors\""))?,
        read: number("read")?,
        assign_visit: number("assign_visit")?,
        unevenness: number("unevenness")?,
        leaf_pair: number("leaf_pair")?,
        leaf_pairs: number("leaf_pairs")?,
        merge: number("merge")?,
        prune: number("prune")?,
        train: number("train")?,
        order: number("order")?,
        write: number("write")?,
        byte_written: number("byte_written")?,
        byte_read: number("byte_read")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_back_as_they_were_and_others_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rates.json");
        let numbers = "\"read\": 1e-7, \"assign_visit\": 1e-9, \"unevenness\": 1.2, \"leaf_pair\": 8e-10, \"leaf_pairs\": 4800, \
                       \"merge\": 2e-6, \"prune\": 3e-6, \"train\": 2, \"order\": 0, \"write\": 1e-6, \"byte_written\": 1e-9, \"byte_read\": 5e-10";
        fs::write(&path, format!("{{\"n\": 5, \"rates\": {{\"vectors\": 200000, {numbers}}}}}")).unwrap();
        let rates = read(&path).unwrap();
        assert_eq!((rates.vectors, rates.leaf_pairs, rates.byte_read), (200_000, 4800.0, 5e-10));
        fs::write(&path, to_json(&rates).to_string()).unwrap();
        assert_eq!(read(&path).unwrap(), rates);
        for bad in ["", "[]", "{\"vectors\": 0}", "{\"vectors\": 7, \"read\": -1}", "{\"vectors\": 7, \"read\": \"fast\"}"] {
            fs::write(&path, bad).unwrap();
            assert!(read(&path).unwrap_err().line().contains("plan INPUT --time --json"), "{bad}");
        }
    }
}
