//! `synth:n=1000000,dim=128,type=u8,seed=1`: realistic vectors that no disk has to hold.
//!
//! Uniform noise is no test of a vector index: all its points are equally far apart. Here row i is
//! `center of its cluster + latent coordinates along the cluster's own axes + a little noise`, with clusters of unequal weight and
//! a latent dimension of about 16, which is what image and text embeddings look like locally. Axes are picked from one pool of
//! directions, so the whole model stays in the cache.
//!
//! Row i is a function of (seed, i) and the shape (dim, clusters, latent) alone: not of n, nor of what was drawn before. Any range can be drawn by any thread, and `n=1000` is
//! the beginning of `n=1000000`. Only additions, multiplications, divisions and square roots in a fixed order are used, whose
//! rounding IEEE 754 prescribes, so every machine draws the same bytes.

use super::{DatasetError, layout};
use crate::element::ElementType;
use crate::random::CounterRng;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use std::path::Path;

/// Directions that the axes of clusters are picked from.
const POOL: usize = 128;
/// Directions along which the centers lie; the first of the pool.
const CENTER_AXES: usize = 32;
/// Coordinates computed together.
const LANES: usize = 16;
/// Variance of a coordinate: between the centers, within a cluster, noise, and of the mean of all rows. The sum is about 1.
///
/// Chosen so that the neighborhoods are as hard as real ones: the 100 nearest of 100k rows have a local intrinsic dimension
/// (maximum likelihood, median of 200 queries, u8 x 128) of 19, where SIFT descriptors have 21 and sentence embeddings 20.
const BETWEEN: f32 = 0.35;
const WITHIN: f32 = 0.55;
const NOISE: f32 = 0.09;
const MEAN: f32 = 0.1;
/// Largest number of clusters, so that their centers take 128 MiB at most.
const MAX_CLUSTERS: usize = 4096;
/// Largest latent dimension: a row's weights live on the stack.
const MAX_LATENT: usize = 64;

/// The parts that random numbers are drawn for.
const PART_POOL: u64 = 1;
const PART_MEAN: u64 = 2;
const PART_CENTERS: u64 = 3;
const PART_AXES: u64 = 4;
const PART_BASE: u64 = 5;
const PART_QUERY: u64 = 6;

/// One coordinate axis of a cluster.
#[derive(Clone, Copy, Debug)]
struct Axis {
    /// Where its direction begins in `Mixture::pool`.
    offset: u32,
    /// Standard deviation of the latent coordinate along it.
    scale: f32,
}

/// The model, and the stream of its rows.
#[derive(Debug)]
pub(super) struct Mixture {
    dim: usize,
    element: ElementType,
    latent: usize,
    /// `dim` rounded up to whole LANES; the coordinates beyond `dim` are never handed out.
    stride: usize,
    /// Directions [POOL * stride].
    pool: Vec<f32>,
    /// Centers [clusters * stride].
    centers: Vec<f32>,
    /// Axes [clusters * latent].
    axes: Vec<Axis>,
    /// Weight of the clusters up to and including each [clusters].
    cumulative: Vec<u64>,
    rng: CounterRng,
}

/// The mixture and the number of rows that `keys` (the text behind `synth:`) describe; `text` is for messages.
pub(super) fn parse(text: &str, keys: &str) -> Result<(Mixture, u64), DatasetError> {
    let refuse = |problem: String| DatasetError::Synth { text: text.to_string(), problem };
    let (mut n, mut dim, mut element, mut seed) = (None, None, ElementType::F32, 1);
    let (mut clusters, mut latent, mut part) = (1024, 16, PART_BASE);
    for pair in keys.split(',').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| refuse(format!("\"{pair}\" is not key=value")))?;
        let number = || value.replace('_', "").parse::<u64>().map_err(|_| refuse(format!("{key}={value} is not a whole number")));
        let up_to = |most: usize| match number()? {
            v if (1..=most as u64).contains(&v) => Ok(v as usize),
            v => Err(refuse(format!("{key}={v} is outside 1..={most}"))),
        };
        match key {
            "n" => n = Some(number()?),
            "dim" => dim = Some(layout::checked_dim(Path::new(text), i64::try_from(number()?).unwrap_or(i64::MAX), 0)?),
            "type" => element = value.parse().map_err(|e| refuse(format!("{e}")))?,
            "seed" => seed = number()?,
            "clusters" => clusters = up_to(MAX_CLUSTERS)?,
            "latent" => latent = up_to(MAX_LATENT)?,
            "part" if value == "base" => part = PART_BASE,
            "part" if value == "query" => part = PART_QUERY,
            "part" => return Err(refuse(format!("part={value} is unknown; known: base, query"))),
            _ => {
                return Err(refuse(format!("key \"{key}\" is unknown; known: n, dim, type, seed, part, clusters, latent")));
            }
        }
    }
    let n = n.ok_or_else(|| refuse("n is missing".into()))?;
    let dim = dim.ok_or_else(|| refuse("dim is missing".into()))?;
    if element == ElementType::Binary && dim % 8 != 0 {
        return Err(refuse(format!("dim={dim} counts bits and must be a multiple of 8")));
    }
    Ok((Mixture::new(dim, element, seed, clusters, latent, part), n))
}

impl Mixture {
    fn new(dim: usize, element: ElementType, seed: u64, clusters: usize, latent: usize, part: u64) -> Mixture {
        let rng = CounterRng::new(seed).part(dim as u64);
        let stride = dim.next_multiple_of(LANES);
        let draws = |part: u64, count: usize| (0..count as u64).map(move |i| gauss(rng.part(part).at(i)));
        let pool: Vec<f32> = draws(PART_POOL, POOL * stride).collect();
        let mean: Vec<f32> = draws(PART_MEAN, stride).map(|g| MEAN.sqrt() * g).collect();

        let spread = decaying(CENTER_AXES, BETWEEN);
        let mut centers = Vec::with_capacity(clusters * stride);
        for c in 0..clusters as u64 {
            let start = centers.len();
            centers.extend_from_slice(&mean);
            for (p, &scale) in spread.iter().enumerate() {
                let weight = scale * gauss(rng.part(PART_CENTERS).part(c).at(p as u64));
                add_scaled(&mut centers[start..], weight, &pool[p * stride..(p + 1) * stride]);
            }
        }

        let scales = decaying(latent, WITHIN);
        let axes = (0..clusters as u64).flat_map(|c| {
            let picked = rng.part(PART_AXES).part(c).sample(POOL as u64, latent as u64);
            // `sample` is sorted: turned by a different amount for every cluster, no direction is always the widest.
            let turn = rng.part(PART_AXES).part(c).below(u64::MAX, latent as u64) as usize;
            let place = |j: usize| picked[(j + turn) % latent] as usize * stride;
            scales.iter().enumerate().map(|(j, &scale)| Axis { offset: place(j) as u32, scale }).collect::<Vec<_>>()
        });
        let axes = axes.collect();

        // Weights fall as 1 / (c + clusters / 8): the first cluster is about nine times as heavy as the last.
        let weight = |c: u64| (1 << 40) / (c + 1 + clusters as u64 / 8);
        let cumulative = (0..clusters as u64).scan(0, |sum, c| {
            *sum += weight(c);
            Some(*sum)
        });
        let cumulative = cumulative.collect();
        Mixture { dim, element, latent, stride, pool, centers, axes, cumulative, rng: rng.part(part) }
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    pub(super) fn element(&self) -> ElementType {
        self.element
    }

    /// Appends rows `start..start + count`, drawn on the calling thread, to `out`.
    pub(super) fn rows(&self, start: u64, count: usize, out: &mut Vec<u8>) {
        out.reserve(count * self.element.row_bytes(self.dim));
        let mut values = vec![0.0; self.stride];
        for row in start..start + count as u64 {
            self.draw(row, &mut values);
            append(self.element, &values[..self.dim], out);
        }
    }

    /// One row, before it is cast to the element type; `values` [stride].
    fn draw(&self, row: u64, values: &mut [f32]) {
        let rng = self.rng.part(row);
        let total = self.cumulative.last().copied().unwrap_or(1);
        let draw = rng.below(0, total);
        let cluster = self.cumulative.partition_point(|&c| c <= draw);
        // Some rows lie close to their center, some far out.
        let spread = 0.75 + 0.5 * unit(rng.at(1));
        let axes = &self.axes[cluster * self.latent..(cluster + 1) * self.latent];
        let mut weights = [(0usize, 0.0f32); MAX_LATENT];
        for (j, (weight, axis)) in weights.iter_mut().zip(axes).enumerate() {
            *weight = (axis.offset as usize, spread * axis.scale * gauss(rng.at(2 + j as u64)));
        }
        let weights = &weights[..self.latent];
        let center = &self.centers[cluster * self.stride..(cluster + 1) * self.stride];
        let noise_scale = NOISE.sqrt() / BYTE_DEVIATION;
        let mut counter = 2 + self.latent as u64;
        for (b, (block, center)) in values.as_chunks_mut::<LANES>().0.iter_mut().zip(center.as_chunks::<LANES>().0).enumerate() {
            // The sums stay in registers while the axes go by.
            let mut sum = *center;
            for &(offset, weight) in weights {
                let at = offset + b * LANES;
                add_scaled(&mut sum, weight, &self.pool[at..at + LANES]);
            }
            for eight in sum.as_chunks_mut::<8>().0 {
                let noise = rng.at(counter).to_le_bytes();
                counter += 1;
                eight.iter_mut().zip(noise).for_each(|(s, byte)| *s += noise_scale * (f32::from(byte) - 127.5));
            }
            *block = sum;
        }
    }
}

/// Standard deviations of `count` axes that fall slowly, their squares summing to `variance`.
fn decaying(count: usize, variance: f32) -> Vec<f32> {
    let raw: Vec<f32> = (0..count).map(|j| 1.0 / (1.0 + j as f32 / 16.0)).collect();
    let norm = (variance / raw.iter().map(|s| s * s).sum::<f32>()).sqrt();
    raw.iter().map(|s| s * norm).collect()
}

#[inline(always)]
fn add_scaled(sum: &mut [f32], weight: f32, direction: &[f32]) {
    sum.iter_mut().zip(direction).for_each(|(s, d)| *s += weight * d);
}

/// Standard deviation of a uniform byte: sqrt((256^2 - 1) / 12).
const BYTE_DEVIATION: f32 = 73.900_38;

/// A number of mean 0 and variance 1, nearly normal: the sum of the eight bytes of `bits` (Irwin-Hall).
#[inline]
fn gauss(bits: u64) -> f32 {
    const EVEN: u64 = 0x00FF_00FF_00FF_00FF;
    let pairs = (bits & EVEN) + (bits >> 8 & EVEN);
    let sum = pairs.wrapping_mul(0x0001_0001_0001_0001) >> 48;
    // 1020 = 8 * 127.5; 209.02 = sqrt(8) * BYTE_DEVIATION.
    (sum as f32 - 1020.0) * (1.0 / 209.02)
}

/// A number of 0..1.
#[inline]
fn unit(bits: u64) -> f32 {
    (bits >> 40) as f32 * (1.0 / (1 << 24) as f32)
}

/// Appends one row of `element`. Bytes look like SIFT: u8 has its mean near 32 and a sixth of its values clipped to 0.
fn append(element: ElementType, values: &[f32], out: &mut Vec<u8>) {
    // Adding these leaves the value, rounded to whole, in the low bits: 2^23, and 1.5 * 2^23 for signed numbers.
    const ROUND: f32 = 8_388_608.0;
    const ROUND_SIGNED: f32 = 12_582_912.0;
    match element {
        ElementType::F32 => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        ElementType::F16 => {
            let mut block = [f16::ZERO; 64];
            for values in values.chunks(block.len()) {
                block[..values.len()].convert_from_f32_slice(values);
                out.extend(block[..values.len()].iter().flat_map(|v| v.to_le_bytes()));
            }
        }
        ElementType::Bf16 => out.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes())),
        ElementType::U8 => out.extend(values.iter().map(|v| ((32.0 + 32.0 * v).clamp(0.0, 255.0) + ROUND).to_bits() as u8)),
        ElementType::I8 => out.extend(values.iter().map(|v| ((40.0 * v).clamp(-127.0, 127.0) + ROUND_SIGNED).to_bits() as u8)),
        ElementType::Binary => {
            let byte = |eight: &[f32; 8]| eight.iter().rev().fold(0, |byte, &v| byte << 1 | u8::from(v > 0.0));
            out.extend(values.as_chunks::<8>().0.iter().map(byte));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::dataset::Dataset;

    fn open(text: &str) -> Dataset {
        Dataset::open(text).unwrap()
    }

    fn all_rows(dataset: &Dataset) -> Vec<u8> {
        let mut out = Vec::new();
        dataset.read_rows(0, dataset.n() as usize, &mut out).unwrap();
        out
    }

    fn all_values(dataset: &Dataset) -> Vec<f32> {
        let mut out = Vec::new();
        dataset.read_rows_f32(0, dataset.n() as usize, &mut out).unwrap();
        out
    }

    #[test]
    fn a_synthetic_row_depends_on_seed_and_number_alone() {
        for element in ["f32", "f16", "bf16", "u8", "i8", "binary"] {
            let text = |n: u32, more: &str| format!("synth:n={n},dim=40,type={element}{more}");
            let open = |n: u32, more: &str| open(&text(n, more));
            let all = all_rows(&open(300, ""));
            assert_eq!(all_rows(&open(100, "")), all[..100 * open(1, "").row_bytes()], "n=100 is the beginning of n=300");
            let mut some = Vec::new();
            open(300, ",seed=1,part=base").read_rows(123, 45, &mut some).unwrap();
            let row_bytes = open(1, "").row_bytes();
            assert_eq!(some, all[123 * row_bytes..168 * row_bytes]);
            assert_ne!(all_rows(&open(300, ",seed=2")), all);
            assert_ne!(all_rows(&open(300, ",part=query")), all);
        }
    }

    #[test]
    fn synthetic_bytes_are_the_same_on_every_machine() {
        for (element, expected) in [
            ("f32", 0xF92C_9FFE_68FE_7201),
            ("f16", 0x18FC_23CE_5C3E_F20B),
            ("u8", 0xE561_7461_8CC5_E572),
            ("i8", 0x11B4_AAD0_6A87_5ACD),
            ("binary", 0xFF5D_9755_E8A4_2BA6),
        ] {
            let rows = all_rows(&open(&format!("synth:n=1000,dim=104,type={element},seed=7")));
            assert_eq!(xxhash_rust::xxh3::xxh3_64(&rows), expected, "{element}");
        }
    }

    #[test]
    fn synthetic_queries_lie_among_the_synthetic_base() {
        // The nearest of 2,000 rows is much nearer than a typical row, for queries of the same mixture and not for those of another.
        let base = all_values(&open("synth:n=2000,dim=64,clusters=32"));
        let nearest_share = |queries: &str| {
            let queries = all_values(&open(queries));
            let ratios = queries.chunks(64).map(|q| {
                let all: Vec<f32> = base.chunks(64).map(|b| q.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum()).collect();
                let mean = all.iter().sum::<f32>() / all.len() as f32;
                all.iter().copied().fold(f32::INFINITY, f32::min) / mean
            });
            ratios.sum::<f32>() / 50.0
        };
        let (same, other) =
            (nearest_share("synth:n=50,dim=64,clusters=32,part=query"), nearest_share("synth:n=50,dim=64,clusters=32,seed=2"));
        assert!(same < 0.3 && other > 1.5 * same, "{same} {other}");
    }

    #[test]
    fn a_synth_text_that_is_wrong_is_refused_with_an_example() {
        for text in [
            "synth:",
            "synth:n=5",
            "synth:dim=5",
            "synth:n=5,dim",
            "synth:n=x,dim=5",
            "synth:n=5,dim=5,type=f64",
            "synth:n=5,dim=5,colour=red",
            "synth:n=5,dim=5,part=third",
            "synth:n=5,dim=5,clusters=0",
            "synth:n=5,dim=5,clusters=5000",
            "synth:n=5,dim=5,latent=65",
            "synth:n=5,dim=5,type=binary",
            "synth:n=-5,dim=5",
        ] {
            let error = Dataset::open(text).unwrap_err().to_string();
            assert!(error.starts_with(text) && error.contains("example"), "{error}");
        }
        let big = open("synth:n=1_000_000_000_000,dim=3");
        let mut row = Vec::new();
        big.read_rows(999_999_999_999, 1, &mut row).unwrap();
        assert_eq!(row.len(), 12);
    }
}
