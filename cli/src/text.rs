//! Numbers and tables for people.

use std::io::{self, Write};

/// `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `325.5 MiB`; the letter is the one that `--ram` takes.
pub(crate) fn bytes(number: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if number < 1024 {
        return format!("{number} B");
    }
    let mut value = number as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `950`, `12.3 k`, `4.56 M`, `1.20 G`: three digits that matter, for rates.
pub(crate) fn rate(number: f64) -> String {
    let (value, letter) = match number {
        n if n >= 1e9 => (n / 1e9, " G"),
        n if n >= 1e6 => (n / 1e6, " M"),
        n if n >= 1e4 => (n / 1e3, " k"),
        n => (n, ""),
    };
    let decimals = if letter.is_empty() && value >= 100.0 { 0 } else { 2usize.saturating_sub((value.max(1.0).log10()) as usize) };
    format!("{value:.decimals$}{letter}")
}

/// `34 ms`, `1.25 s`, `12.3 s`, `4 min 05 s`, `2 h 03 min`.
pub(crate) fn seconds(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0 if seconds < 0.9995 => format!("{:.0} ms", seconds * 1e3),
        0..10 => format!("{seconds:.2} s"),
        10..120 => format!("{seconds:.1} s"),
        120..7200 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

/// `87 us`, `1.42 ms`.
pub(crate) fn micros(us: f64) -> String {
    match us {
        us if us < 1000.0 => format!("{us:.0} us"),
        us if us < 100_000.0 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.0} ms", us / 1e3),
    }
}

/// Writes `name  value` lines with the values in one column.
pub(crate) fn pairs(out: &mut dyn Write, lines: &[(&str, String)]) -> io::Result<()> {
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    lines.iter().try_for_each(|(name, value)| writeln!(out, "{name:<width$}  {value}"))
}

/// Writes one row of right-aligned cells, each as wide as `widths` says.
pub(crate) fn row(out: &mut dyn Write, cells: &[String], widths: &[usize]) -> io::Result<()> {
    let padded: Vec<String> = cells.iter().zip(widths).map(|(cell, &width)| format!("{cell:>width$}")).collect();
    writeln!(out, "{}", padded.join("  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!((count(0), count(999), count(1000), count(1_234_567)), ("0".into(), "999".into(), "1,000".into(), "1,234,567".into()));
        assert_eq!(
            (bytes(1023), bytes(1024), bytes(1 << 30), bytes((1 << 30) - 1)),
            ("1023 B".into(), "1.0 KiB".into(), "1.0 GiB".into(), "1.0 GiB".into())
        );
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!((rate(0.5), rate(45.25), rate(950.0), rate(9999.0)), ("0.50".into(), "45.2".into(), "950".into(), "9999".into()));
        assert_eq!((rate(12_345.0), rate(4.56e6), rate(1.2e9)), ("12.3 k".into(), "4.56 M".into(), "1.20 G".into()));
        assert_eq!(
            (seconds(0.034), seconds(12.34), seconds(245.0), seconds(7380.0)),
            ("34 ms".into(), "12.3 s".into(), "4 min 05 s".into(), "2 h 03 min".into())
        );
        assert_eq!((micros(87.4), micros(1420.0), micros(250_000.0)), ("87 us".into(), "1.42 ms".into(), "250 ms".into()));
    }

    #[test]
    fn columns_line_up() {
        let mut out = Vec::new();
        pairs(&mut out, &[("n", "5".into()), ("dim", "128".into())]).unwrap();
        row(&mut out, &["a".into(), "bb".into()], &[3, 4]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "n    5\ndim  128\n  a    bb\n");
    }
}
