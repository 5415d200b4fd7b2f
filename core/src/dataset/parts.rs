//! One dataset made of runs of rows of others: nothing is copied, rows are read from where they lie.
//!
//! A row is found by a binary search of the runs; a request that crosses runs is one read for each. Memory is 24 bytes a run.

use super::{Dataset, DatasetError, Rows};
use std::path::PathBuf;

/// Rows `start..start + count` of the part number `part`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which part.
    pub part: u32,
    /// Its first row.
    pub start: u64,
    /// Rows, at least one.
    pub count: u64,
}

/// Parts and what of them is a dataset's, in order.
#[derive(Debug)]
pub(super) struct Parts {
    parts: Vec<Dataset>,
    runs: Vec<Placed>,
}

/// A run, and the number that its first row has in the whole.
#[derive(Clone, Copy, Debug)]
struct Placed {
    first: u64,
    start: u64,
    part: u32,
}

impl Dataset {
    /// The rows of `runs`, one run after the other, of `parts`, which all have the type and dimension of the first.
    ///
    /// # Errors
    /// [`DatasetError::PartsDiffer`]; [`DatasetError::NoSuchRows`] for a run that its part does not hold.
    ///
    /// # Panics
    /// Without parts, or with a run of a part that is not there.
    pub fn of_parts(parts: Vec<Dataset>, runs: &[Run]) -> Result<Dataset, DatasetError> {
        let shape = |part: &Dataset| format!("{} x {}", part.dim, part.element);
        let (dim, element) = (parts[0].dim, parts[0].element);
        if let Some(other) = parts.iter().find(|part| (part.dim, part.element) != (dim, element)) {
            let (first, expected, got) = (parts[0].source.clone(), shape(&parts[0]), shape(other));
            return Err(DatasetError::PartsDiffer { path: other.source.clone(), got, first, expected });
        }
        let (mut placed, mut n) = (Vec::with_capacity(runs.len()), 0);
        for run in runs.iter().filter(|run| run.count > 0) {
            let part = &parts[run.part as usize];
            if run.start.checked_add(run.count).is_none_or(|end| end > part.n) {
                let (start, count) = (run.start, usize::try_from(run.count).unwrap_or(usize::MAX));
                return Err(DatasetError::NoSuchRows { path: part.source.clone(), start, count, n: part.n });
            }
            placed.push(Placed { first: n, start: run.start, part: run.part });
            n += run.count;
        }
        let mut source = parts[0].source.clone().into_os_string();
        if parts.len() > 1 {
            source.push(format!(" and {} more", parts.len() - 1));
        }
        Ok(Dataset { source: PathBuf::from(source), n, dim, element, rows: Rows::Parts(Box::new(Parts { parts, runs: placed })) })
    }

    /// Where row `row` lies: the file (or `synth:`) that it comes from, and its number there.
    pub fn place(&self, row: u64) -> (&str, u64) {
        match &self.rows {
            Rows::Parts(parts) if !parts.runs.is_empty() => {
                let run = parts.runs[parts.run_of(row)];
                parts.parts[run.part as usize].place(run.start + (row - run.first))
            }
            _ => (self.source(), row),
        }
    }

    /// Memory that the dataset holds for as long as it is open.
    pub fn resident_bytes(&self) -> u64 {
        match &self.rows {
            Rows::Parts(parts) => size_of_val(parts.runs.as_slice()) as u64 + parts.parts.iter().map(Dataset::resident_bytes).sum::<u64>(),
            Rows::File { .. } | Rows::Synth(_) => 0,
        }
    }
}

impl Parts {
    /// The run that holds `row`.
    fn run_of(&self, row: u64) -> usize {
        self.runs.partition_point(|run| run.first <= row).saturating_sub(1)
    }

    /// As [`Dataset::read_rows`], whose `n` is the end of the last run.
    pub(super) fn read_rows(&self, n: u64, start: u64, count: usize, out: &mut Vec<u8>) -> Result<(), DatasetError> {
        let end = start + count as u64;
        let (mut row, mut at, mut piece) = (start, self.run_of(start), Vec::new());
        out.clear();
        while row < end {
            let run = self.runs[at];
            let until = self.runs.get(at + 1).map_or(n, |next| next.first).min(end);
            let (part, first) = (&self.parts[run.part as usize], run.start + (row - run.first));
            if (row, until) == (start, end) {
                return part.read_rows(first, count, out);
            }
            part.read_rows(first, (until - row) as usize, &mut piece)?;
            out.extend_from_slice(&piece);
            (row, at) = (until, at + 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn synth(keys: &str) -> Dataset {
        Dataset::open(&format!("synth:{keys}")).unwrap()
    }

    fn read(dataset: &Dataset, start: u64, count: usize) -> Vec<u8> {
        let mut out = vec![7; 5]; // what was there before is gone
        dataset.read_rows(start, count, &mut out).unwrap();
        out
    }

    #[test]
    fn any_rows_of_a_whole_are_those_of_its_parts() {
        let (a, b) = ("n=10,dim=4,type=u8", "n=6,dim=4,type=u8,seed=2");
        let runs = [(0, 0, 3), (0, 4, 5), (1, 5, 1), (1, 0, 4), (0, 9, 1)];
        let plain: Vec<Vec<u8>> = runs
            .iter()
            .flat_map(|&(part, start, count)| (start..start + count).map(move |row| read(&synth([a, b][part]), row, 1)))
            .collect();
        let runs: Vec<Run> = runs.iter().map(|&(part, start, count)| Run { part: part as u32, start, count }).collect();
        let whole = Dataset::of_parts(vec![synth(a), synth(b)], &runs).unwrap();
        assert_eq!((whole.n(), whole.dim(), whole.resident_bytes()), (14, 4, 5 * 24));
        for start in 0..=14 {
            for count in 0..=14 - start {
                assert_eq!(read(&whole, start as u64, count), plain[start..start + count].concat(), "{start}+{count}");
            }
        }
        assert_eq!((whole.place(3).1, whole.place(8).1, whole.place(13).1), (4, 5, 9));
        assert!(whole.place(8).0.contains("seed=2"));
        assert!(whole.read_rows(10, 5, &mut Vec::new()).is_err());
        let bits = whole.into_binary().unwrap().limit(9);
        assert_eq!((bits.n(), bits.dim(), read(&bits, 7, 2)), (9, 32, plain[7..9].concat()));
    }

    #[test]
    fn rows_are_counted_beyond_32_bits() {
        let base = "n=6000000000,dim=2,type=u8,clusters=2";
        let runs = [Run { part: 0, start: 0, count: 5_000_000_000 }, Run { part: 0, start: 5_000_000_001, count: 999_999_999 }];
        let whole = Dataset::of_parts(vec![synth(base)], &runs).unwrap();
        assert_eq!((whole.n(), whole.place(5_000_000_000).1), (5_999_999_999, 5_000_000_001));
        assert_eq!(read(&whole, 4_999_999_999, 2), [read(&synth(base), 4_999_999_999, 1), read(&synth(base), 5_000_000_001, 1)].concat());
    }

    #[test]
    fn parts_that_differ_and_runs_that_are_not_there_are_refused() {
        let whole = |other: &str, run| Dataset::of_parts(vec![synth("n=10,dim=4,type=u8"), synth(other)], &[run]);
        let run = Run { part: 1, start: 0, count: 5 };
        for other in ["n=5,dim=5,type=u8", "n=5,dim=4,type=i8"] {
            let error = whole(other, run).unwrap_err().to_string();
            assert!(error.contains(other) && error.contains("4 x u8") && error.contains("n=10"), "{error}");
        }
        assert!(matches!(whole("n=4,dim=4,type=u8", run), Err(DatasetError::NoSuchRows { n: 4, .. })));
        let none = Dataset::of_parts(vec![synth("n=10,dim=4,type=u8")], &[]).unwrap();
        assert_eq!((none.n(), read(&none, 0, 0)), (0, Vec::new()));
    }
}
