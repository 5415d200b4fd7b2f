//! How any vector becomes the row of bytes that graphs are built on and PQ codes are trained on.
//!
//! No float decides the graph. u8 rows are taken as they are, i8 is shifted by 128, packed bits stay bits, and floats pass through SQ8: one
//! clip range and one scale for all coordinates, so that integer L2 follows true L2. Cosine normalises first. Inner product appends
//! coordinates that bring every vector to the same length M, which turns the largest product into the nearest distance (Bachrach et
//! al., RecSys 2014); that length is spread over m equal coordinates, so that the one scale neither clips nor starves the others.
//! All of it is plain f32 in a fixed order: every backend and SIMD level sees the same bytes.

use crate::{
    element::ElementType,
    id::MAX_DIM,
    metric::Metric,
    pq::LookupKind,
    tile::{BuildMetric, ROW_ALIGN},
};

/// The map from rows of one element type to rows of `stride` bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildCodec {
    element: ElementType,
    metric: Metric,
    dim: usize,
    /// Clip range of SQ8; 0 and 255 where bytes are taken as they are.
    low: f32,
    high: f32,
    /// Inner product: the squared length M^2 that every vector is brought to.
    max_norm_squared: f32,
}

/// Bytes of a stored codec.
pub const CODEC_BYTES: usize = 16;

/// Why a data set cannot be built on with a metric.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CodecError {
    /// Too many or no coordinates.
    #[error("dimension {0} is not in 1..={MAX_DIM}")]
    Dimension(usize),
    /// A stored clip range that no data has.
    #[error("a clip range from {0} to {1}")]
    Range(f32, f32),
    /// The metric does not fit the element type.
    #[error(
        "metric {metric} does not go with {element} vectors; hamming goes with binary (u8 rows of packed bits) and binary with hamming alone"
    )]
    Metric {
        /// Asked for.
        metric: Metric,
        /// Of the data.
        element: ElementType,
    },
}

/// Why one row has no code.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum RowError {
    /// NaN or infinity.
    #[error("coordinate {0} is not finite")]
    NotFinite(usize),
    /// The square of the length is beyond f32.
    #[error("the vector is too long: its squared length overflows")]
    Magnitude,
    /// A zero vector has no direction.
    #[error("a zero vector has no direction, which cosine needs; drop it or use l2")]
    Zero,
}

impl BuildCodec {
    /// A codec whose ranges are learned from `sample` (f32 rows [n x dim], already checked by [`BuildCodec::check_row`]).
    ///
    /// # Errors
    /// Dimension out of range; Hamming without binary rows, or binary rows without Hamming.
    pub fn learn(element: ElementType, metric: Metric, dim: usize, sample: &[f32]) -> Result<BuildCodec, CodecError> {
        if dim == 0 || dim > MAX_DIM {
            return Err(CodecError::Dimension(dim));
        }
        if (element == ElementType::Binary) != (metric == Metric::Hamming) {
            return Err(CodecError::Metric { metric, element });
        }
        let mut codec = BuildCodec { element, metric, dim, low: 0.0, high: 255.0, max_norm_squared: 0.0 };
        if codec.takes_bytes() || sample.is_empty() {
            return Ok(codec);
        }
        let mut row = Vec::new();
        if metric == Metric::InnerProduct {
            let norms = sample.chunks_exact(dim).map(squared_length);
            // A little more than the sample's longest, so that few later rows are longer; those that are lose only their surplus.
            codec.max_norm_squared = norms.fold(0.0, f32::max) * 1.05;
        }
        let mut values = Vec::with_capacity(sample.len());
        for raw in sample.chunks_exact(dim) {
            row.clear();
            row.extend_from_slice(raw);
            codec.to_build_space(&mut row);
            values.extend_from_slice(&row);
        }
        if values.iter().all(|v| v.fract() == 0.0 && (0.0..=255.0).contains(v)) {
            return Ok(codec); // bytes that were stored as floats
        }
        // Clip the outermost 0.02% at both ends: they would cost the rest its resolution.
        let cut = values.len() / 5000;
        codec.low = *values.select_nth_unstable_by(cut, f32::total_cmp).1;
        let top = values.len() - 1 - cut;
        codec.high = *values.select_nth_unstable_by(top, f32::total_cmp).1;
        if codec.high <= codec.low {
            codec.high = codec.low + codec.low.abs().max(1.0);
        }
        Ok(codec)
    }

    /// What was learned, for codebook.rx: clip range and inner product's squared length, three f32 and four zero bytes.
    pub fn to_bytes(&self) -> [u8; CODEC_BYTES] {
        let mut bytes = [0; CODEC_BYTES];
        for (out, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip([self.low, self.high, self.max_norm_squared]) {
            *out = value.to_le_bytes();
        }
        bytes
    }

    /// Reads back [`BuildCodec::to_bytes`] for an index of this shape.
    ///
    /// # Errors
    /// As [`BuildCodec::learn`].
    pub fn from_bytes(element: ElementType, metric: Metric, dim: usize, bytes: &[u8; CODEC_BYTES]) -> Result<BuildCodec, CodecError> {
        let mut codec = BuildCodec::learn(element, metric, dim, &[])?;
        let [low, high, norm, _] = bytes.as_chunks::<4>().0 else { return Ok(codec) };
        [codec.low, codec.high, codec.max_norm_squared] = [low, high, norm].map(|b| f32::from_le_bytes(*b));
        let sound =
            (codec.high - codec.low).is_finite() && codec.high > codec.low && (0.0..f32::INFINITY).contains(&codec.max_norm_squared);
        if sound { Ok(codec) } else { Err(CodecError::Range(codec.low, codec.high)) }
    }

    /// What near means.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// What a coordinate of 0 stands for.
    pub(crate) fn low(&self) -> f32 {
        self.low
    }

    /// What a step of one coordinate stands for.
    pub(crate) fn unit(&self) -> f32 {
        (self.high - self.low) / 255.0
    }

    /// What the first coordinates `[dim]` of a code stand for: the row as SQ8 keeps it; under cosine of length 1, more or less.
    pub fn decode(&self, code: &[u8], out: &mut [f32]) {
        out.iter_mut().zip(code).for_each(|(value, &c)| *value = self.low + f32::from(c) * self.unit());
    }

    /// Are codes, without their padding, the rows themselves?
    pub fn codes_are_rows(&self) -> bool {
        self.takes_bytes() && self.element != ElementType::I8
    }

    /// u8 and i8 rows under L2 and L1 and all binary rows need no arithmetic.
    fn takes_bytes(&self) -> bool {
        match self.element {
            ElementType::U8 | ElementType::I8 => matches!(self.metric, Metric::L2 | Metric::Manhattan),
            ElementType::Binary => true,
            _ => false,
        }
    }

    /// The integer metric of the codes.
    pub fn build_metric(&self) -> BuildMetric {
        match self.metric {
            Metric::L2 | Metric::Cosine | Metric::InnerProduct => BuildMetric::L2,
            Metric::Manhattan => BuildMetric::Manhattan,
            Metric::Hamming => BuildMetric::Hamming,
        }
    }

    /// Coordinates in build space, without padding: bytes of one packed row for Hamming, `dim` plus the appended ones for inner product.
    pub fn build_dim(&self) -> usize {
        match self.metric {
            Metric::Hamming => self.dim / 8,
            Metric::InnerProduct => (self.dim + 1).next_multiple_of(ROW_ALIGN),
            _ => self.dim,
        }
    }

    /// Bytes of one code row: `build_dim` padded with zeros for the kernels.
    pub fn stride(&self) -> usize {
        self.build_dim().next_multiple_of(ROW_ALIGN)
    }

    /// Coordinates that PQ sees: one byte each; packed bits are spread to one byte a bit.
    pub fn pq_dim(&self) -> usize {
        if self.metric == Metric::Hamming { self.dim } else { self.build_dim() }
    }

    /// How the lookup table of a query weighs PQ coordinates.
    pub fn lookup_kind(&self) -> LookupKind {
        match self.metric {
            Metric::InnerProduct => LookupKind::InnerProduct,
            Metric::Manhattan => LookupKind::Manhattan,
            _ => LookupKind::L2,
        }
    }

    /// Proves that a row, decoded to f32 `[dim]`, has a code.
    ///
    /// # Errors
    /// Not finite, too long, or zero under cosine.
    pub fn check_row(metric: Metric, row: &[f32]) -> Result<(), RowError> {
        let norm = squared_length(row);
        if !norm.is_finite() {
            let bad = row.iter().position(|v| !v.is_finite());
            return Err(bad.map_or(RowError::Magnitude, RowError::NotFinite));
        }
        if metric == Metric::Cosine && row.iter().all(|&v| v == 0.0) {
            return Err(RowError::Zero);
        }
        if metric == Metric::Cosine && norm < f32::MIN_POSITIVE {
            return Err(RowError::Magnitude);
        }
        Ok(())
    }

    /// Brings a decoded row [dim] into build space [build_dim], still in floats.
    fn to_build_space(&self, row: &mut Vec<f32>) {
        match self.metric {
            Metric::Cosine => {
                let length = squared_length(row).sqrt();
                row.iter_mut().for_each(|v| *v /= length);
            }
            Metric::InnerProduct => {
                let missing = (self.max_norm_squared - squared_length(row)).max(0.0);
                let extra = self.build_dim() - self.dim;
                row.resize(self.build_dim(), (missing / extra as f32).sqrt());
            }
            _ => {}
        }
    }

    /// Appends the code `[stride]` of one raw row, which must have passed [`BuildCodec::check_row`]. `scratch` is reused.
    pub fn encode(&self, raw: &[u8], scratch: &mut Vec<f32>, out: &mut Vec<u8>) {
        let end = out.len() + self.stride();
        match self.element {
            ElementType::U8 | ElementType::Binary if self.takes_bytes() => out.extend_from_slice(raw),
            ElementType::I8 if self.takes_bytes() => out.extend(raw.iter().map(|&b| b ^ 0x80)),
            _ => {
                scratch.clear();
                scratch.resize(self.dim, 0.0);
                self.element.decode(raw, scratch);
                self.to_build_space(scratch);
                let scale = self.scale();
                // `as u8` saturates, which is the clip; adding a half and cutting rounds.
                out.extend(scratch.iter().map(|&v| ((v - self.low) * scale + 0.5) as u8));
            }
        }
        out.resize(end, 0);
    }

    fn scale(&self) -> f32 {
        255.0 / (self.high - self.low)
    }

    /// What PQ trains on and encodes, from one code row: `[pq_dim]` bytes.
    pub fn pq_row<'a>(&self, code: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
        if self.metric != Metric::Hamming {
            return &code[..self.build_dim()];
        }
        scratch.clear();
        scratch.extend((0..self.dim).map(|bit| if code[bit / 8] >> (bit % 8) & 1 == 1 { 255 } else { 0 }));
        scratch
    }

    /// A checked query row `[dim]` in the units of PQ's lookup table `[pq_dim]`: unrounded codes, or weights for inner product.
    pub fn pq_query(&self, query: &[f32], out: &mut Vec<f32>) {
        out.clear();
        out.extend_from_slice(query);
        match self.metric {
            Metric::Hamming => out.iter_mut().for_each(|v| *v *= 255.0),
            Metric::InnerProduct => out.resize(self.build_dim(), 0.0),
            _ if self.takes_bytes() => {
                if self.element == ElementType::I8 {
                    out.iter_mut().for_each(|v| *v += 128.0);
                }
            }
            _ => {
                self.to_build_space(out);
                let (low, scale) = (self.low, self.scale());
                out.iter_mut().for_each(|v| *v = (*v - low) * scale);
            }
        }
    }
}

fn squared_length(row: &[f32]) -> f32 {
    // Eight sums in a fixed order: vectorises, and gives the same bits everywhere.
    let mut sums = [0f32; 8];
    let (chunks, rest) = row.as_chunks::<8>();
    for chunk in chunks {
        for (s, &v) in sums.iter_mut().zip(chunk) {
            *s += v * v;
        }
    }
    for (s, &v) in sums.iter_mut().zip(rest) {
        *s += v * v;
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(codec: &BuildCodec, values: &[f32]) -> Vec<u8> {
        let (mut raw, mut out) = (Vec::new(), Vec::new());
        ElementType::F32.encode(values, &mut raw).unwrap();
        codec.encode(&raw, &mut Vec::new(), &mut out);
        out
    }

    #[test]
    fn bytes_stored_as_floats_are_taken_as_bytes() {
        let codec = BuildCodec::learn(ElementType::F32, Metric::L2, 3, &[0.0, 17.0, 255.0]).unwrap();
        assert_eq!(code(&codec, &[1.0, 2.0, 300.0])[..4], [1, 2, 255, 0]);
    }

    #[test]
    fn cosine_ignores_length_and_inner_product_prefers_it() {
        let sample: Vec<f32> = (0..400).map(|i| ((i * 37 % 101) as f32 - 50.0) / 10.0).collect();
        let cosine = BuildCodec::learn(ElementType::F32, Metric::Cosine, 4, &sample).unwrap();
        assert_eq!(code(&cosine, &[1.0, 2.0, -3.0, 0.5]), code(&cosine, &[2.0, 4.0, -6.0, 1.0]));
        let dot = BuildCodec::learn(ElementType::F32, Metric::InnerProduct, 4, &sample).unwrap();
        assert_eq!((dot.build_dim(), dot.stride()), (32, 32));
        let d = |a: &[f32], b: &[f32]| BuildMetric::L2.distance(&code(&dot, a), &code(&dot, b));
        let near = [1.0, 1.0, 0.0, 0.0];
        assert!(d(&[4.0, 4.0, 0.0, 0.0], &near) < d(&[-4.0, -4.0, 0.0, 0.0], &near));
    }

    #[test]
    fn rows_without_a_code_say_why() {
        assert_eq!(BuildCodec::check_row(Metric::L2, &[1.0, f32::NAN]), Err(RowError::NotFinite(1)));
        assert_eq!(BuildCodec::check_row(Metric::L2, &[1e30, 1e30]), Err(RowError::Magnitude));
        assert_eq!(BuildCodec::check_row(Metric::Cosine, &[0.0, -0.0]), Err(RowError::Zero));
        assert_eq!(BuildCodec::check_row(Metric::L2, &[0.0, 0.0]), Ok(()));
        assert!(BuildCodec::learn(ElementType::F32, Metric::Hamming, 8, &[]).is_err());
        assert!(BuildCodec::learn(ElementType::F32, Metric::L2, 8193, &[]).is_err());
    }
}
