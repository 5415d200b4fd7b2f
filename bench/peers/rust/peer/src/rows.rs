//! Rows in: .npy, and the .bin family of the field (u32 n, u32 dim, then rows), little-endian all.

use anyhow::{Context, Result, bail, ensure};
use half::f16;
use std::{
    fs::File,
    io::{BufWriter, Read, Write},
    path::Path,
};

/// The type of a coordinate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element {
    /// One byte.
    U8,
    /// Half precision.
    F16,
    /// Single precision.
    F32,
}

impl Element {
    fn bytes(self) -> usize {
        match self {
            Element::U8 => 1,
            Element::F16 => 2,
            Element::F32 => 4,
        }
    }
}

/// Coordinates [n * dim], row by row.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Of u8.
    U8(Vec<u8>),
    /// Of f16.
    F16(Vec<f16>),
    /// Of f32.
    F32(Vec<f32>),
}

/// Rows [n x dim].
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    /// How many.
    pub n: usize,
    /// Coordinates of each.
    pub dim: usize,
    /// All of them.
    pub values: Values,
}

impl Rows {
    /// The first `limit` rows of a file, or all.
    pub fn read(path: &Path, limit: Option<usize>) -> Result<Rows> {
        Rows::read_open(path, limit).with_context(|| path.display().to_string())
    }

    fn read_open(path: &Path, limit: Option<usize>) -> Result<Rows> {
        let mut file = File::open(path).context("open")?;
        let (element, n, dim) = match path.extension().and_then(|e| e.to_str()) {
            Some("npy") => npy_header(&mut file)?,
            Some("u8bin") => bin_header(&mut file, Element::U8)?,
            Some("f16bin") => bin_header(&mut file, Element::F16)?,
            Some("fbin") => bin_header(&mut file, Element::F32)?,
            _ => bail!("no .npy, .u8bin, .f16bin or .fbin file"),
        };
        let n = n.min(limit.unwrap_or(n));
        let mut bytes = vec![0; n * dim * element.bytes()];
        file.read_exact(&mut bytes).with_context(|| format!("{n} rows of {dim} coordinates"))?;
        let values = match element {
            Element::U8 => Values::U8(bytes),
            Element::F16 => Values::F16(bytemuck::pod_collect_to_vec(&bytes)),
            Element::F32 => Values::F32(bytemuck::pod_collect_to_vec(&bytes)),
        };
        Ok(Rows { n, dim, values })
    }

    /// The type of a coordinate.
    pub fn element(&self) -> Element {
        match self.values {
            Values::U8(_) => Element::U8,
            Values::F16(_) => Element::F16,
            Values::F32(_) => Element::F32,
        }
    }

    /// All coordinates as f32 [n * dim].
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.values {
            Values::U8(v) => v.iter().map(|&x| f32::from(x)).collect(),
            Values::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
            Values::F32(v) => v.clone(),
        }
    }

    /// Rows of length 1: f16 stays f16, all else becomes f32. A row of zeros stays one.
    pub fn unit(&self) -> Rows {
        let mut values = self.to_f32();
        for row in values.chunks_exact_mut(self.dim) {
            let length = row.iter().map(|x| x * x).sum::<f32>().sqrt();
            row.iter_mut().filter(|_| length > 0.0).for_each(|x| *x /= length);
        }
        let values = match self.element() {
            Element::F16 => Values::F16(values.into_iter().map(f16::from_f32).collect()),
            _ => Values::F32(values),
        };
        Rows { values, ..*self }
    }

    /// Writes a .bin file.
    pub fn write_bin(&self, path: &Path) -> Result<()> {
        let mut file = BufWriter::new(File::create(path).with_context(|| format!("{}: create", path.display()))?);
        for number in [self.n, self.dim] {
            file.write_all(&u32::try_from(number)?.to_le_bytes())?;
        }
        match &self.values {
            Values::U8(v) => file.write_all(v)?,
            Values::F16(v) => file.write_all(bytemuck::cast_slice(v))?,
            Values::F32(v) => file.write_all(bytemuck::cast_slice(v))?,
        }
        file.flush().with_context(|| format!("{}: write", path.display()))
    }
}

/// Row numbers of the exact neighbors of each query.
pub struct Truth {
    width: usize,
    ids: Vec<u32>,
}

impl Truth {
    /// A truth .bin (u32 n, u32 k, ids, distances) of at least `queries` queries and `k` neighbors each.
    pub fn read(path: &Path, queries: usize, k: usize) -> Result<Truth> {
        let mut file = File::open(path).with_context(|| format!("{}: open", path.display()))?;
        let (_, n, width) = bin_header(&mut file, Element::F32)?;
        ensure!(n >= queries && width >= k, "{}: {n} queries of {width} neighbors, {queries} of {k} are needed", path.display());
        let mut bytes = vec![0; n * width * 4];
        file.read_exact(&mut bytes).with_context(|| format!("{}: {n} x {width} neighbors", path.display()))?;
        Ok(Truth { width, ids: bytemuck::pod_collect_to_vec(&bytes) })
    }

    /// Mean recall@k of what was `found` for each query, in their order.
    pub fn recall(&self, found: &[Vec<u32>], k: usize) -> f64 {
        let hits = |(query, ids): (usize, &Vec<u32>)| {
            let truth = &self.ids[query * self.width..][..k];
            truth.iter().filter(|id| ids.contains(id)).count()
        };
        found.iter().enumerate().map(hits).sum::<usize>() as f64 / (found.len() * k) as f64
    }
}

fn bin_header(file: &mut File, element: Element) -> Result<(Element, usize, usize)> {
    let mut head = [[0; 4]; 2];
    file.read_exact(head.as_flattened_mut()).context("header")?;
    let [n, dim] = head.map(|bytes| u32::from_le_bytes(bytes) as usize);
    Ok((element, n, dim))
}

/// Element, rows and dimension from the head of a .npy file, which is left standing at its first row.
fn npy_header(file: &mut File) -> Result<(Element, usize, usize)> {
    let mut head = [0; 10];
    file.read_exact(&mut head).context("header")?;
    ensure!(head[..6] == *b"\x93NUMPY" && head[6] == 1, "not a .npy file of version 1");
    let mut text = vec![0; usize::from(u16::from_le_bytes([head[8], head[9]]))];
    file.read_exact(&mut text).context("header")?;
    let text = String::from_utf8(text).context("header")?;
    let after = |key: &str| text.split_once(key).map(|(_, rest)| rest.trim_start_matches([':', ' ', '\'', '(']));
    let element = match after("'descr'").and_then(|rest| rest.split('\'').next()) {
        Some("|u1") => Element::U8,
        Some("<f2") => Element::F16,
        Some("<f4") => Element::F32,
        other => bail!("elements {other:?}; |u1, <f2 or <f4 are read"),
    };
    ensure!(after("'fortran_order'").is_some_and(|rest| rest.starts_with("False")), "rows must lie one after the other");
    let shape = after("'shape'").and_then(|rest| rest.split(')').next()).unwrap_or_default();
    let sizes = shape.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::parse).collect::<Result<Vec<usize>, _>>();
    match sizes.as_deref() {
        Ok(&[n, dim]) => Ok((element, n, dim)),
        _ => bail!("shape ({shape}); two axes are read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        (directory, path)
    }

    #[test]
    fn a_bin_file_is_read_as_it_was_written() {
        let rows = Rows { n: 3, dim: 2, values: Values::F32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) };
        let (_directory, path) = written("a.fbin", b"");
        rows.write_bin(&path).expect("written");
        assert_eq!(Rows::read(&path, None).expect("read"), rows);
        assert_eq!(Rows::read(&path, Some(1)).expect("read").to_f32(), [1.0, 2.0]);
    }

    #[test]
    fn an_npy_file_tells_its_type_and_shape() {
        let text = "{'descr': '<f2', 'fortran_order': False, 'shape': (1, 2), }\n";
        let head = [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes(), &[0, 0x3c, 0, 0x40]].concat();
        let (_directory, path) = written("a.npy", &head);
        let rows = Rows::read(&path, None).expect("read");
        assert_eq!((rows.n, rows.dim, rows.element(), rows.to_f32()), (1, 2, Element::F16, vec![1.0, 2.0]));
        let (_directory, path) = written("b.npy", &[&head[..10], text.replace("False", "True ").as_bytes()].concat());
        assert!(format!("{:#}", Rows::read(&path, None).expect_err("columns")).contains("one after the other"));
    }

    #[test]
    fn a_file_shorter_than_its_header_says_is_refused() {
        let (_directory, path) = written("a.u8bin", &[2, 0, 0, 0, 2, 0, 0, 0, 7, 7, 7]);
        assert!(format!("{:#}", Rows::read(&path, None).expect_err("short")).contains("2 rows of 2 coordinates"));
    }

    #[test]
    fn a_row_of_length_one_keeps_its_direction() {
        let rows = Rows { n: 2, dim: 2, values: Values::U8(vec![3, 4, 0, 0]) };
        assert_eq!(rows.unit().to_f32(), [0.6, 0.8, 0.0, 0.0]);
    }

    #[test]
    fn recall_counts_the_true_neighbors_among_the_first_k() {
        let truth = Truth { width: 3, ids: vec![1, 2, 9, 4, 5, 9] };
        assert_eq!(truth.recall(&[vec![2, 1], vec![4, 9]], 2), 0.75);
    }
}
