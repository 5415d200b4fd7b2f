//! The instructions under product quantization: nearest centroids, rotation, table rows; each with a plain twin that is its oracle.
//!
//! Sixteen vectors lie side by side in the lanes and centroids pass by one after the other, so nothing is ever reduced across lanes
//! and "first of the equal ones" is simply the order of time. Integers: every level gives the same result by construction. The f32
//! rows are one safe body compiled for several levels; Rust neither fuses nor reorders f32 arithmetic, so those are equal as well.
#![allow(unsafe_code)]

use super::CENTROIDS;
use super::subspace::Subspace;
use crate::simd::SimdLevel;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Vectors of a block.
pub(super) const LANES: usize = 16;
/// Two neighboring fixed-point coordinates: one operand lane of a 16-bit multiply-add.
pub(super) type Pair = [i16; 2];

/// Proof that a level runs on this processor: made only by `detected` and `available`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernels(SimdLevel);

impl Kernels {
    pub(super) fn detected() -> Kernels {
        Kernels(SimdLevel::detected())
    }

    #[cfg(test)]
    pub(super) fn available() -> Vec<Kernels> {
        SimdLevel::available().into_iter().map(Kernels).collect()
    }

    /// For each of `LANES` vectors ([pairs][LANES]) the number of its nearest centroid, in the meaning of [`Subspace`].
    #[inline]
    pub(super) fn nearest(self, vectors: &[[Pair; LANES]], subspace: &Subspace) -> [u8; LANES] {
        assert_eq!(vectors.len(), subspace.pair_count());
        match self.0 {
            // SAFETY: `Kernels` proves that the processor has the level's instructions.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => unsafe { nearest_avx512(vectors, subspace) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => unsafe { nearest_avx2(vectors, subspace) },
            _ => nearest_scalar(vectors, subspace),
        }
    }

    /// `out[i][lane] = sum_p rows[i][p] . vectors[p][lane]`, wrapping at 32 bits, for the four rows ([4][pairs]) of a matrix.
    #[inline]
    pub(super) fn multiply(self, vectors: &[[Pair; LANES]], rows: [&[Pair]; 4]) -> [[i32; LANES]; 4] {
        assert!(rows.iter().all(|r| r.len() == vectors.len()));
        match self.0 {
            // SAFETY: `Kernels` proves that the processor has the level's instructions.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx512 => unsafe { multiply_avx512(vectors, rows) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            SimdLevel::Avx2 => unsafe { multiply_avx2(vectors, rows) },
            _ => multiply_scalar(vectors, rows),
        }
    }
}

/// Methods of [`Kernels`] whose plain body is compiled once for each level.
macro_rules! compiled_for_each_level {
    ($(
        $(#[$doc:meta])*
        fn $name:ident $(<const $constant:ident: u8>)? ($($argument:ident: $type:ty),*) $(-> $out:ty)? = $body:ident;
    )*) => {
        impl Kernels {$(
            $(#[$doc])*
            #[inline]
            pub(super) fn $name $(<const $constant: u8>)? (self, $($argument: $type),*) $(-> $out)? {
                #[cfg(target_arch = "x86_64")]
                {
                    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
                    fn avx512 $(<const $constant: u8>)? ($($argument: $type),*) $(-> $out)? {
                        $body $(::<$constant>)? ($($argument),*)
                    }
                    #[target_feature(enable = "avx2")]
                    fn avx2 $(<const $constant: u8>)? ($($argument: $type),*) $(-> $out)? {
                        $body $(::<$constant>)? ($($argument),*)
                    }
                    match self.0 {
                        // SAFETY: `Kernels` proves that the processor has the level's instructions.
                        SimdLevel::Avx512 => return unsafe { avx512 $(::<$constant>)? ($($argument),*) },
                        // SAFETY: as above.
                        SimdLevel::Avx2 => return unsafe { avx2 $(::<$constant>)? ($($argument),*) },
                        _ => {}
                    }
                }
                $body $(::<$constant>)? ($($argument),*)
            }
        )*}
    };
}

compiled_for_each_level! {
    /// `table[k] = sum_j term(query[j], centroids[j][k])` with `centroids` [query.len()][CENTROIDS]; term 0 is the squared
    /// difference, 1 the negated product, 2 the absolute difference.
    fn table_row<const TERM: u8>(query: &[f32], centroids: &[i16], table: &mut [f32; CENTROIDS]) = table_row_any;

    /// The least and the greatest of `values`; NaN counts for neither.
    fn range(values: &[f32; CENTROIDS]) -> (f32, f32) = range_any;

    /// `bytes[k] = (values[k] - least) * scale`, to the nearest of 0..=255.
    fn to_bytes(values: &[f32; CENTROIDS], least: f32, scale: f32, bytes: &mut [u8; CENTROIDS]) = to_bytes_any;

    /// `sum_j entries[j] * query[j]`, in an order of additions that is fixed.
    fn weighted_sum(entries: &[i16], query: &[f32]) -> f32 = weighted_sum_any;

    /// `target += factor * source`, rounded twice (no fused multiply-add), element by element.
    fn add_scaled(target: &mut [f64], factor: f64, source: &[f64]) = add_scaled_any;

    /// `sum_i a[i] * b[i]`; the slices are short enough for i32.
    fn dot(a: &[i16], b: &[i16]) -> i32 = dot_any;
}

/// Asks for the cache line where `bytes` begins; nothing for an empty slice.
#[inline(always)]
pub(super) fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program can see and never faults; SSE is part of x86-64.
    unsafe {
        _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

#[inline(always)]
fn pair_product(a: Pair, b: Pair) -> i32 {
    (i32::from(a[0]) * i32::from(b[0])).wrapping_add(i32::from(a[1]) * i32::from(b[1]))
}

fn nearest_scalar(vectors: &[[Pair; LANES]], subspace: &Subspace) -> [u8; LANES] {
    let (mut best, mut number) = ([i32::MIN; LANES], [0i32; LANES]);
    for (k, &start) in (0..).zip(subspace.starts()) {
        let mut score = [start; LANES];
        for (vector, &pair) in vectors.iter().zip(subspace.centroid(k as usize)) {
            for (score, &v) in score.iter_mut().zip(vector) {
                *score = score.wrapping_add(pair_product(v, pair));
            }
        }
        for ((&score, best), number) in score.iter().zip(&mut best).zip(&mut number) {
            *number = if score > *best { k } else { *number };
            *best = score.max(*best);
        }
    }
    number.map(|k| k as u8)
}

fn multiply_scalar(vectors: &[[Pair; LANES]], rows: [&[Pair]; 4]) -> [[i32; LANES]; 4] {
    rows.map(|row| {
        let mut sums = [0i32; LANES];
        for (vector, &pair) in vectors.iter().zip(row) {
            for (sum, &v) in sums.iter_mut().zip(vector) {
                *sum = sum.wrapping_add(pair_product(v, pair));
            }
        }
        sums
    })
}

#[inline(always)]
fn table_row_any<const TERM: u8>(query: &[f32], centroids: &[i16], table: &mut [f32; CENTROIDS]) {
    const STRIP: usize = 64;
    let rows = centroids.as_chunks::<CENTROIDS>().0;
    for (strip, table) in table.as_chunks_mut::<STRIP>().0.iter_mut().enumerate() {
        let mut sums = [0f32; STRIP];
        for (&q, row) in query.iter().zip(rows) {
            for (sum, &c) in sums.iter_mut().zip(&row.as_chunks::<STRIP>().0[strip]) {
                let c = f32::from(c);
                *sum += match TERM {
                    0 => (q - c) * (q - c),
                    1 => -(q * c),
                    _ => (q - c).abs(),
                };
            }
        }
        *table = sums;
    }
}

#[inline(always)]
fn range_any(values: &[f32; CENTROIDS]) -> (f32, f32) {
    // The greatest is minus the least of the negated: one loop shape, which vectorizes.
    (least_any(values, 1.0), -least_any(values, -1.0))
}

#[inline(always)]
fn least_any(values: &[f32; CENTROIDS], sign: f32) -> f32 {
    let mut least = [f32::INFINITY; LANES];
    for values in values.as_chunks::<LANES>().0 {
        for (least, &value) in least.iter_mut().zip(values) {
            let value = value * sign;
            *least = if value < *least { value } else { *least };
        }
    }
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for lane in 0..width {
            least[lane] = if least[lane + width] < least[lane] { least[lane + width] } else { least[lane] };
        }
    }
    least[0]
}

#[inline(always)]
fn to_bytes_any(values: &[f32; CENTROIDS], least: f32, scale: f32, bytes: &mut [u8; CENTROIDS]) {
    // Added to a number in 0..=255, 2^23 leaves it in the low bits of the sum, rounded (halves to even). `as` would be as right, but
    // its saturation kept the loop from vectorizing and took six times as long.
    const SHIFT: f32 = 8_388_608.0;
    for (byte, &value) in bytes.iter_mut().zip(values) {
        let scaled = (value - least) * scale;
        let clipped = if scaled < 255.0 { scaled } else { 255.0 };
        *byte = (clipped + SHIFT).to_bits() as u8;
    }
}

#[inline(always)]
fn weighted_sum_any(entries: &[i16], query: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let (entries, entries_rest) = entries.as_chunks::<LANES>();
    let (query, query_rest) = query.as_chunks::<LANES>();
    for (e, q) in entries.iter().zip(query) {
        for lane in 0..LANES {
            sums[lane] += f32::from(e[lane]) * q[lane];
        }
    }
    for (sum, (&e, &q)) in sums.iter_mut().zip(entries_rest.iter().zip(query_rest)) {
        *sum += f32::from(e) * q;
    }
    sums.into_iter().fold(0.0, |total, sum| total + sum)
}

#[inline(always)]
fn add_scaled_any(target: &mut [f64], factor: f64, source: &[f64]) {
    for (t, &s) in target.iter_mut().zip(source) {
        *t += factor * s;
    }
}

#[inline(always)]
fn dot_any(a: &[i16], b: &[i16]) -> i32 {
    a.iter().zip(b).fold(0i32, |sum, (&a, &b)| sum.wrapping_add(i32::from(a) * i32::from(b)))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::*;

    #[target_feature(enable = "avx512f")]
    fn load_512(lanes: &[Pair; LANES]) -> __m512i {
        // SAFETY: the array is 64 bytes long; the load is an unaligned one.
        unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx")]
    fn load_256(lanes: &[Pair; 8]) -> __m256i {
        // SAFETY: the array is 32 bytes long; the load is an unaligned one.
        unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    fn store_512(v: __m512i) -> [i32; LANES] {
        let mut out = [0; LANES];
        // SAFETY: the array is 64 bytes long; the store is an unaligned one.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), v) };
        out
    }

    #[target_feature(enable = "avx")]
    fn store_256(v: __m256i) -> [i32; 8] {
        let mut out = [0; 8];
        // SAFETY: the array is 32 bytes long; the store is an unaligned one.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), v) };
        out
    }

    /// The best score of each lane so far and its centroid's number.
    #[derive(Clone, Copy)]
    struct Best512 {
        score: __m512i,
        number: __m512i,
        next: __m512i,
    }

    impl Best512 {
        #[target_feature(enable = "avx512f")]
        fn none() -> Best512 {
            Best512 { score: _mm512_set1_epi32(i32::MIN), number: _mm512_setzero_si512(), next: _mm512_setzero_si512() }
        }

        #[target_feature(enable = "avx512f")]
        fn offer(&mut self, score: __m512i) {
            let better = _mm512_cmpgt_epi32_mask(score, self.score);
            self.score = _mm512_max_epi32(self.score, score);
            self.number = _mm512_mask_mov_epi32(self.number, better, self.next);
            self.next = _mm512_add_epi32(self.next, _mm512_set1_epi32(1));
        }

        #[target_feature(enable = "avx512f")]
        fn numbers(self) -> [u8; LANES] {
            store_512(self.number).map(|k| k as u8)
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn nearest_avx512(vectors: &[[Pair; LANES]], subspace: &Subspace) -> [u8; LANES] {
        match vectors.len() {
            1 => nearest_few_avx512::<1>(vectors, subspace),
            2 => nearest_few_avx512::<2>(vectors, subspace),
            3 => nearest_few_avx512::<3>(vectors, subspace),
            4 => nearest_few_avx512::<4>(vectors, subspace),
            6 => nearest_few_avx512::<6>(vectors, subspace),
            8 => nearest_few_avx512::<8>(vectors, subspace),
            _ => nearest_many_avx512(vectors, subspace),
        }
    }

    /// `P` pairs a vector: the vectors stay in registers, a centroid costs P multiply-adds and four more instructions.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn nearest_few_avx512<const P: usize>(vectors: &[[Pair; LANES]], subspace: &Subspace) -> [u8; LANES] {
        let mut lanes = [_mm512_setzero_si512(); P];
        for (lane, vector) in lanes.iter_mut().zip(vectors) {
            *lane = load_512(vector);
        }
        let mut best = Best512::none();
        for (centroid, &start) in subspace.pairs().as_chunks::<P>().0.iter().zip(subspace.starts()) {
            let mut score = _mm512_set1_epi32(start);
            for p in 0..P {
                score = _mm512_dpwssd_epi32(score, lanes[p], _mm512_set1_epi32(bytemuck::cast(centroid[p])));
            }
            best.offer(score);
        }
        best.numbers()
    }

    /// Any number of pairs, four centroids at a time so that a vector's load serves all four.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    fn nearest_many_avx512(vectors: &[[Pair; LANES]], subspace: &Subspace) -> [u8; LANES] {
        let count = subspace.pair_count();
        let mut best = Best512::none();
        for (centroids, starts) in subspace.pairs().chunks_exact(4 * count).zip(subspace.starts().as_chunks::<4>().0) {
            let (a, rest) = centroids.split_at(count);
            let (b, rest) = rest.split_at(count);
            let (c, d) = rest.split_at(count);
            let mut scores = [_mm512_setzero_si512(); 4];
            for (score, &start) in scores.iter_mut().zip(starts) {
                *score = _mm512_set1_epi32(start);
            }
            for ((((vector, &a), &b), &c), &d) in vectors.iter().zip(a).zip(b).zip(c).zip(d) {
                let lanes = load_512(vector);
                scores[0] = _mm512_dpwssd_epi32(scores[0], lanes, _mm512_set1_epi32(bytemuck::cast(a)));
                scores[1] = _mm512_dpwssd_epi32(scores[1], lanes, _mm512_set1_epi32(bytemuck::cast(b)));
                scores[2] = _mm512_dpwssd_epi32(scores[2], lanes, _mm512_set1_epi32(bytemuck::cast(c)));
                scores[3] = _mm512_dpwssd_epi32(scores[3], lanes, _mm512_set1_epi32(bytemuck::cast(d)));
            }
            for score in scores {
                best.offer(score);
            }
        }
        best.numbers()
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn nearest_avx2(vectors: &[[Pair; LANES]], subspace: &Subspace) -> [u8; LANES] {
        let mut best = [_mm256_set1_epi32(i32::MIN); 2];
        let mut number = [_mm256_setzero_si256(); 2];
        let mut next = _mm256_setzero_si256();
        for (centroid, &start) in subspace.pairs().chunks_exact(subspace.pair_count()).zip(subspace.starts()) {
            let mut score = [_mm256_set1_epi32(start); 2];
            for (vector, &pair) in vectors.iter().zip(centroid) {
                let pair = _mm256_set1_epi32(bytemuck::cast(pair));
                for (score, half) in score.iter_mut().zip(vector.as_chunks::<8>().0) {
                    *score = _mm256_add_epi32(*score, _mm256_madd_epi16(load_256(half), pair));
                }
            }
            for half in 0..2 {
                let better = _mm256_cmpgt_epi32(score[half], best[half]);
                best[half] = _mm256_max_epi32(best[half], score[half]);
                number[half] = _mm256_blendv_epi8(number[half], next, better);
            }
            next = _mm256_add_epi32(next, _mm256_set1_epi32(1));
        }
        bytemuck::cast([store_256(number[0]).map(|k| k as u8), store_256(number[1]).map(|k| k as u8)])
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    pub(super) fn multiply_avx512(vectors: &[[Pair; LANES]], rows: [&[Pair]; 4]) -> [[i32; LANES]; 4] {
        let mut sums = [_mm512_setzero_si512(); 4];
        let [a, b, c, d] = rows;
        for ((((vector, &a), &b), &c), &d) in vectors.iter().zip(a).zip(b).zip(c).zip(d) {
            let lanes = load_512(vector);
            sums[0] = _mm512_dpwssd_epi32(sums[0], lanes, _mm512_set1_epi32(bytemuck::cast(a)));
            sums[1] = _mm512_dpwssd_epi32(sums[1], lanes, _mm512_set1_epi32(bytemuck::cast(b)));
            sums[2] = _mm512_dpwssd_epi32(sums[2], lanes, _mm512_set1_epi32(bytemuck::cast(c)));
            sums[3] = _mm512_dpwssd_epi32(sums[3], lanes, _mm512_set1_epi32(bytemuck::cast(d)));
        }
        [store_512(sums[0]), store_512(sums[1]), store_512(sums[2]), store_512(sums[3])]
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn multiply_avx2(vectors: &[[Pair; LANES]], rows: [&[Pair]; 4]) -> [[i32; LANES]; 4] {
        let mut out = [[0; LANES]; 4];
        for (row, out) in rows.into_iter().zip(&mut out) {
            let mut sums = [_mm256_setzero_si256(); 2];
            for (vector, &pair) in vectors.iter().zip(row) {
                let pair = _mm256_set1_epi32(bytemuck::cast(pair));
                for (sum, half) in sums.iter_mut().zip(vector.as_chunks::<8>().0) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(load_256(half), pair));
                }
            }
            *out = bytemuck::cast([store_256(sums[0]), store_256(sums[1])]);
        }
        out
    }
}
#[cfg(target_arch = "x86_64")]
use x86::*;
