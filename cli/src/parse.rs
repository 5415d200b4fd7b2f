//! Words of the command line that clap does not know: sizes, sweeps, inline vectors. Strict, so that a typo is never another number.

use roxanne_builder::foreign::System;
use roxanne_core::{element::ElementType, format::record::Stored, metric::Metric};
use roxanne_engine::{SearchParams, collection::KeyKind};
use std::{str::FromStr, time::Duration};

/// Most points of one sweep.
const MAX_POINTS: usize = 64;

/// `64G`: a whole number and K, M, G, T or P, which are powers of 2^10; `KiB` to `PiB` say the same. Without a letter it is bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.strip_suffix("iB").filter(|letter| !letter.is_empty()).unwrap_or(unit) {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        "P" | "p" => 50,
        _ => return Err("write a whole number and K, M, G, T or P, such as 64G (G is 2^30 bytes)".into()),
    };
    let number: u64 = number.parse().map_err(|_| "write a whole number before the unit, such as 64G".to_string())?;
    number.checked_mul(1 << shift).filter(|&bytes| bytes > 0).ok_or_else(|| "a size is between 1 byte and 2^64".into())
}

/// `500ms`, `10s`, `5m` or `1h`: a whole number and a unit, which 0 needs not.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let bad = || "write a whole number and ms, s, m or h, such as 500ms".to_string();
    let number: u64 = number.parse().map_err(|_| bad())?;
    let millis = match unit {
        "" if number == 0 => 0,
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(bad)
}

/// A share of a whole, 0 to 1.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "write a share between 0 and 1, such as 0.95".into())
}

/// `recall@10>=0.95`: what an index must reach.
pub(crate) fn gate(text: &str) -> Result<f64, String> {
    let bad = || "write what it must reach, such as recall@10>=0.95".to_string();
    text.replace(' ', "").strip_prefix("recall@10>=").ok_or_else(bad).and_then(share)
}

/// A metric by any of its names.
pub(crate) fn metric(text: &str) -> Result<Metric, String> {
    text.parse().map_err(|e: roxanne_core::metric::UnknownMetric| e.to_string())
}

/// A type of coordinates by its name.
pub(crate) fn element(text: &str) -> Result<ElementType, String> {
    text.parse().map_err(|e: roxanne_core::element::UnknownElementType| e.to_string())
}

/// A system whose indexes are read, by its name.
pub(crate) fn system(text: &str) -> Result<System, String> {
    text.parse()
}

/// A kind of keys by its name.
pub(crate) fn key_kind(text: &str) -> Result<KeyKind, String> {
    KeyKind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| format!("\"{text}\" is neither numbers nor strings"))
}

/// What records hold, by its name.
pub(crate) fn stored(text: &str) -> Result<Stored, String> {
    Stored::ALL.into_iter().find(|stored| stored.name() == text).ok_or_else(|| format!("\"{text}\" is neither full nor sq8"))
}

/// `--pq-bytes auto|N`: `None` leaves the choice to the builder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PqBytes(pub(crate) Option<usize>);

impl FromStr for PqBytes {
    type Err = String;
    fn from_str(text: &str) -> Result<PqBytes, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(PqBytes(None)),
            (_, Ok(bytes @ 1..)) => Ok(PqBytes(Some(bytes))),
            _ => Err("write auto, or the bytes of one code, such as 32".into()),
        }
    }
}

/// How much a search looks at: a list, or a slack within a long one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Effort {
    List(usize),
    Slack(f32),
}

impl Effort {
    /// `params`, with this effort.
    pub(crate) fn of(self, params: SearchParams) -> SearchParams {
        match self {
            Effort::List(list_size) => SearchParams { list_size, ..params },
            Effort::Slack(slack) => params.with_slack(slack),
        }
    }
}

impl std::fmt::Display for Effort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Effort::List(list_size) => write!(f, "{list_size}"),
            Effort::Slack(slack) => write!(f, "slack {slack}"),
        }
    }
}

/// A slack: 0 to 1000, of which less than 1 makes sense.
pub(crate) fn slack(text: &str) -> Result<f32, String> {
    text.trim().parse().ok().filter(|slack| (0.0..=1000.0).contains(slack)).ok_or_else(|| format!("\"{text}\" is no slack; write 0.1, say"))
}

/// The efforts of a sweep, in the order they were given.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sweep(pub(crate) Vec<Effort>);

impl FromStr for Sweep {
    type Err = String;

    /// `list-size=16,32,64` or `list-size=16..256`, which doubles from 16 up to 256. `ef=` and `complexity=` say the same, and so
    /// does no name at all. Or `slack=0.05,0.1`.
    fn from_str(text: &str) -> Result<Sweep, String> {
        let (name, values) = text.split_once('=').unwrap_or(("list-size", text));
        if name == "slack" {
            let slacks = values.split(',').map(|text| slack(text).map(Effort::Slack)).collect::<Result<Vec<_>, _>>()?;
            return if slacks.len() > MAX_POINTS { Err(format!("at most {MAX_POINTS} make one sweep")) } else { Ok(Sweep(slacks)) };
        }
        if !["list-size", "list_size", "ef", "complexity"].contains(&name) {
            return Err(format!("\"{name}\" cannot be swept; write list-size=16,32,64 or list-size=16..256 or slack=0.05,0.1"));
        }
        let number = |text: &str| match text.trim().parse::<usize>() {
            Ok(number @ 1..) => Ok(number),
            _ => Err(format!("\"{text}\" is no list size; write list-size=16,32,64 or list-size=16..256")),
        };
        let sizes = match values.split_once("..") {
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return Err(format!("{first}..{last} is empty; write the smaller list size first"));
                }
                let mut sizes: Vec<usize> = std::iter::successors(Some(first), |s| s.checked_mul(2)).take_while(|&s| s < last).collect();
                sizes.push(last);
                sizes
            }
            None => values.split(',').map(number).collect::<Result<_, _>>()?,
        };
        if sizes.len() > MAX_POINTS {
            return Err(format!("{} list sizes; at most {MAX_POINTS} make one sweep", sizes.len()));
        }
        Ok(Sweep(sizes.into_iter().map(Effort::List).collect()))
    }
}

/// Where queries come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum QuerySource {
    /// `v=0.1,0.2`: one vector, here.
    Inline(Vec<f32>),
    /// A file or `synth:`.
    Rows(String),
}

impl FromStr for QuerySource {
    type Err = String;
    fn from_str(text: &str) -> Result<QuerySource, String> {
        let Some(values) = text.strip_prefix("v=") else { return Ok(QuerySource::Rows(text.to_string())) };
        let number = |(at, text): (usize, &str)| match text.trim().parse::<f32>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err(format!("coordinate {at} is \"{text}\", which is no finite number; write v=0.1,0.2,0.3")),
        };
        values.split(',').enumerate().map(number).collect::<Result<_, _>>().map(QuerySource::Inline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        let millis = |text| duration(text).map(|time| time.as_millis()).ok();
        assert_eq!(
            (millis("500ms"), millis("2s"), millis("3m"), millis("1h"), millis("0")),
            (Some(500), Some(2000), Some(180_000), Some(3_600_000), Some(0))
        );
        assert!(
            ["", "5", "s", "-1s", "1.5s", "99999999999999999999h", "18446744073709551615h"].into_iter().all(|text| millis(text).is_none())
        );
    }

    #[test]
    fn a_size_is_a_whole_number_and_a_power_of_1024() {
        assert_eq!(size("64G"), Ok(64 << 30));
        assert_eq!(size("2T"), Ok(2 << 40));
        assert_eq!((size("7"), size("1k"), size("3MiB"), size("1P")), (Ok(7), Ok(1024), Ok(3 << 20), Ok(1 << 50)));
        assert_eq!(size("16383P"), Ok(16383 << 50));
    }

    #[test]
    fn a_size_with_a_typo_is_refused() {
        for bad in [
            "",
            "G",
            "64GB",
            "1.5G",
            "-1G",
            "+1G",
            "64 G",
            " 64G",
            "64GG",
            "iB",
            "64iB",
            "0",
            "0G",
            "16384P",
            "99999999999999999999",
            "1e9",
        ] {
            assert!(size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_share_is_between_nothing_and_all() {
        assert_eq!((share("0.95"), share("1"), share("0")), (Ok(0.95), Ok(1.0), Ok(0.0)));
        assert!(["95", "-0.1", "NaN", "95%", ""].iter().all(|bad| share(bad).is_err()));
    }

    #[test]
    fn a_sweep_lists_or_doubles() {
        let sizes = |sweep: Sweep| sweep.0.into_iter().filter_map(|e| if let Effort::List(size) = e { Some(size) } else { None }).collect();
        let sweep = |text: &str| text.parse::<Sweep>().map(sizes);
        assert_eq!("slack=0.05, 0.1".parse(), Ok(Sweep(vec![Effort::Slack(0.05), Effort::Slack(0.1)])));
        assert!(["slack=", "slack=-1", "slack=nan", "slack=0.1..0.2"].iter().all(|bad| bad.parse::<Sweep>().is_err()));
        assert_eq!(sweep("list-size=16,32,64"), Ok(vec![16, 32, 64]));
        assert_eq!(sweep("ef=100"), Ok(vec![100]));
        assert_eq!(sweep("16..256"), Ok(vec![16, 32, 64, 128, 256]));
        assert_eq!(sweep("complexity=10..50"), Ok(vec![10, 20, 40, 50]));
        assert_eq!(sweep("8..8"), Ok(vec![8]));
        for bad in ["", "list-size=", "list-size=0", "16,,32", "256..16", "0..4", "beam=4", "16..", "-1", "list-size=a"] {
            assert!(sweep(bad).is_err(), "{bad:?}");
        }
        assert!(sweep(&vec!["9"; 65].join(",")).is_err());
    }

    #[test]
    fn an_inline_vector_is_finite_and_a_path_is_a_path() {
        assert_eq!("v=0.5,-1, 2e3".parse(), Ok(QuerySource::Inline(vec![0.5, -1.0, 2000.0])));
        assert_eq!("v.fbin".parse(), Ok(QuerySource::Rows("v.fbin".into())));
        for bad in ["v=", "v=1,,2", "v=NaN", "v=inf", "v=1;2", "v=1e39"] {
            assert!(bad.parse::<QuerySource>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn code_sizes_are_known_or_refused() {
        assert_eq!(("auto".parse(), "32".parse()), (Ok(PqBytes(None)), Ok(PqBytes(Some(32)))));
        assert!(["0", "-3", "many"].iter().all(|b| b.parse::<PqBytes>().is_err()));
    }
}
