//! The little linear algebra that training a rotation takes, on row-major square f64 matrices.
//!
//! Every element is computed in one fixed order from additions, multiplications, divisions and square roots alone, which IEEE 754
//! rounds the same way everywhere: no fused multiply-add, no library functions, one thread. The inner loops are all "row += factor *
//! row", whose elements are independent, so wide registers change the speed and not one bit.

use super::kernel::Kernels;

/// A square matrix, row after row.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    pub(super) n: usize,
    pub(super) values: Vec<f64>,
}

impl Matrix {
    pub(super) fn zero(n: usize) -> Matrix {
        Matrix { n, values: vec![0.0; n * n] }
    }

    pub(super) fn identity(n: usize) -> Matrix {
        let mut matrix = Matrix::zero(n);
        for i in 0..n {
            matrix.row_mut(i)[i] = 1.0;
        }
        matrix
    }

    pub(super) fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.n..][..self.n]
    }

    pub(super) fn row_mut(&mut self, i: usize) -> &mut [f64] {
        &mut self.values[i * self.n..][..self.n]
    }

    /// Rows `a < b`, both to be changed.
    fn two_rows(&mut self, a: usize, b: usize) -> (&mut [f64], &mut [f64]) {
        let (head, tail) = self.values.split_at_mut(b * self.n);
        (&mut head[a * self.n..][..self.n], &mut tail[..self.n])
    }

    pub(super) fn transposed(&self) -> Matrix {
        let mut out = Matrix::zero(self.n);
        for (i, row) in self.values.chunks_exact(self.n).enumerate() {
            for (j, &value) in row.iter().enumerate() {
                out.values[j * self.n + i] = value;
            }
        }
        out
    }

    /// Root of the sum of the squares of all values.
    pub(super) fn norm(&self) -> f64 {
        self.values.iter().fold(0.0, |sum, v| sum + v * v).sqrt()
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}

/// Eigenvalues, largest first, and the eigenvectors as rows in the same order, of a symmetric matrix.
///
/// Householder tridiagonalization, then implicit QL (Golub, Van Loan: "Matrix Computations", 8.3). About 5 n^3 multiply-adds.
pub(super) fn symmetric_eigen(kernels: Kernels, matrix: Matrix) -> (Vec<f64>, Matrix) {
    let n = matrix.n;
    let (mut diagonal, mut off_diagonal, mut vectors) = tridiagonal(kernels, matrix);
    implicit_ql(&mut diagonal, &mut off_diagonal, &mut vectors);
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]).then(a.cmp(&b)));
    let rows = order.iter().flat_map(|&i| vectors.row(i).iter().copied()).collect();
    (order.iter().map(|&i| diagonal[i]).collect(), Matrix { n, values: rows })
}

/// `A = Q T Q^T`: the diagonal of T, its off-diagonal, and `Q^T`.
fn tridiagonal(kernels: Kernels, mut a: Matrix) -> (Vec<f64>, Vec<f64>, Matrix) {
    let n = a.n;
    let mut reflections = Vec::new();
    let mut off_diagonal = Vec::with_capacity(n);
    for k in 0..n.saturating_sub(1) {
        let mut v = a.row(k)[k + 1..].to_vec();
        let length = dot(&v, &v).sqrt();
        let signed = if v[0] < 0.0 { -length } else { length };
        if k + 2 == n || length == 0.0 {
            off_diagonal.push(v[0]);
            reflections.push((v, 0.0));
            continue;
        }
        off_diagonal.push(-signed);
        v[0] += signed;
        let beta = 2.0 / dot(&v, &v);
        // The rest of A becomes H A H with H = 1 - beta v v^T, written as A - v w^T - w v^T.
        let mut w = vec![0.0; v.len()];
        for (j, &vj) in v.iter().enumerate() {
            kernels.add_scaled(&mut w, beta * vj, &a.row(k + 1 + j)[k + 1..]);
        }
        let half = 0.5 * beta * dot(&w, &v);
        kernels.add_scaled(&mut w, -half, &v);
        for j in 0..v.len() {
            let row = &mut a.row_mut(k + 1 + j)[k + 1..];
            kernels.add_scaled(row, -v[j], &w);
            kernels.add_scaled(row, -w[j], &v);
        }
        reflections.push((v, beta));
    }
    off_diagonal.resize(n, 0.0);
    let mut q = Matrix::identity(n);
    for (k, (v, beta)) in reflections.iter().enumerate().rev().filter(|(_, (_, beta))| *beta != 0.0) {
        let mut sums = vec![0.0; v.len()];
        for (j, &vj) in v.iter().enumerate() {
            kernels.add_scaled(&mut sums, vj, &q.row(k + 1 + j)[k + 1..]);
        }
        for (j, &vj) in v.iter().enumerate() {
            kernels.add_scaled(&mut q.row_mut(k + 1 + j)[k + 1..], -beta * vj, &sums);
        }
    }
    ((0..n).map(|i| a.row(i)[i]).collect(), off_diagonal, q.transposed())
}

/// Turns T (diagonal `d`, off-diagonal `e`) into its eigenvalues, left in `d`, and rotates the rows of `vectors` along.
fn implicit_ql(d: &mut [f64], e: &mut [f64], vectors: &mut Matrix) {
    /// Two or three rounds are usual; a matrix that took more would only be a less exact one, still orthogonal.
    const MOST_ROUNDS: usize = 60;
    let n = d.len();
    for low in 0..n {
        for _ in 0..MOST_ROUNDS {
            let split = (low..n - 1).find(|&m| e[m].abs() <= f64::EPSILON * (d[m].abs() + d[m + 1].abs()));
            let high = split.unwrap_or(n - 1);
            if high == low {
                break;
            }
            // Wilkinson's shift, from the upper corner.
            let ratio = (d[low + 1] - d[low]) / (2.0 * e[low]);
            let root = (ratio * ratio + 1.0).sqrt();
            let mut g = d[high] - d[low] + e[low] / (ratio + if ratio < 0.0 { -root } else { root });
            let (mut sine, mut cosine, mut shift) = (1.0, 1.0, 0.0);
            let mut broke_off = false;
            for i in (low..high).rev() {
                let (f, b) = (sine * e[i], cosine * e[i]);
                let r = (f * f + g * g).sqrt();
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= shift;
                    e[high] = 0.0;
                    broke_off = true;
                    break;
                }
                (sine, cosine) = (f / r, g / r);
                let before = d[i + 1] - shift;
                let r = (d[i] - before) * sine + 2.0 * cosine * b;
                shift = sine * r;
                d[i + 1] = before + shift;
                g = cosine * r - b;
                let (lower, upper) = vectors.two_rows(i, i + 1);
                for (l, u) in lower.iter_mut().zip(upper) {
                    (*l, *u) = (cosine * *l - sine * *u, sine * *l + cosine * *u);
                }
            }
            if !broke_off {
                d[low] -= shift;
                e[low] = g;
                e[high] = 0.0;
            }
        }
    }
}

/// The inverse, by Gauss and Jordan with row pivots; `None` where the matrix has none. n^3 multiply-adds.
pub(super) fn inverse(kernels: Kernels, mut a: Matrix) -> Option<Matrix> {
    let n = a.n;
    let mut swaps = Vec::with_capacity(n);
    for column in 0..n {
        let pivot = (column..n).max_by(|&i, &j| a.row(i)[column].abs().total_cmp(&a.row(j)[column].abs()).then(j.cmp(&i)))?;
        if pivot != column {
            let (upper, lower) = a.two_rows(column, pivot);
            upper.swap_with_slice(lower);
        }
        swaps.push(pivot);
        let scale = 1.0 / a.row(column)[column];
        if !scale.is_finite() {
            return None;
        }
        a.row_mut(column)[column] = 1.0;
        a.row_mut(column).iter_mut().for_each(|v| *v *= scale);
        let pivot_row = a.row(column).to_vec();
        for row in a.values.chunks_exact_mut(n).enumerate().filter(|(i, _)| *i != column).map(|(_, row)| row) {
            let factor = std::mem::replace(&mut row[column], 0.0);
            kernels.add_scaled(row, -factor, &pivot_row);
        }
    }
    for (column, pivot) in swaps.into_iter().enumerate().rev() {
        for row in a.values.chunks_exact_mut(n) {
            row.swap(column, pivot);
        }
    }
    Some(a)
}

/// The orthogonal matrix nearest to `a` (its polar factor): what the orthogonal Procrustes problem asks for.
///
/// Newton's iteration `X <- (s X + (s X)^-T) / 2`, scaled by Frobenius norms (Higham: "Computing the polar decomposition", 1986).
/// `None` where `a` is singular.
pub(super) fn polar(kernels: Kernels, a: Matrix) -> Option<Matrix> {
    const MOST_ROUNDS: usize = 40;
    /// Squared relative change after which one more round, of quadratic convergence, would be below 2^-26.
    const SMALL: f64 = 1e-8;
    let mut x = a;
    for _ in 0..MOST_ROUNDS {
        let inverse = inverse(kernels, x.clone())?.transposed();
        let scale = (inverse.norm() / x.norm()).sqrt();
        let (mut change, mut size) = (0.0, 0.0);
        for (x, inverse) in x.values.iter_mut().zip(&inverse.values) {
            let next = 0.5 * (scale * *x + inverse / scale);
            change += (next - *x) * (next - *x);
            size += next * next;
            *x = next;
        }
        if change <= SMALL * size {
            return Some(x);
        }
    }
    Some(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::CounterRng;

    fn random(n: usize, seed: u64) -> Matrix {
        let rng = CounterRng::new(seed);
        Matrix { n, values: (0..n * n).map(|i| rng.below(i as u64, 2001) as f64 / 1000.0 - 1.0).collect() }
    }

    fn product(a: &Matrix, b_transposed: &Matrix) -> Matrix {
        let n = a.n;
        Matrix { n, values: (0..n * n).map(|i| dot(a.row(i / n), b_transposed.row(i % n))).collect() }
    }

    fn farthest(a: &Matrix, b: &Matrix) -> f64 {
        a.values.iter().zip(&b.values).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
    }

    #[test]
    fn eigenvectors_rebuild_their_matrix() {
        for n in [1, 2, 3, 8, 31, 64] {
            let half = random(n, n as u64);
            let matrix = product(&half, &half);
            let (values, vectors) = symmetric_eigen(Kernels::detected(), matrix.clone());
            assert!(values.windows(2).all(|w| w[0] >= w[1]));
            assert!(farthest(&product(&vectors, &vectors), &Matrix::identity(n)) < 1e-12, "n {n}");
            let columns = vectors.transposed();
            let scaled = Matrix { n, values: columns.values.iter().enumerate().map(|(i, v)| v * values[i % n]).collect() };
            assert!(farthest(&product(&scaled, &columns), &matrix) < 1e-11, "n {n}");
        }
    }

    #[test]
    fn a_zero_or_diagonal_matrix_has_unit_eigenvectors() {
        let (values, vectors) = symmetric_eigen(Kernels::detected(), Matrix::zero(5));
        assert_eq!((values, vectors.values), (vec![0.0; 5], Matrix::identity(5).values));
        let mut diagonal = Matrix::identity(3);
        diagonal.row_mut(1)[1] = 4.0;
        assert_eq!(symmetric_eigen(Kernels::detected(), diagonal).0, [4.0, 1.0, 1.0]);
    }

    #[test]
    fn the_polar_factor_is_orthogonal_and_leaves_a_symmetric_positive_rest() {
        for n in [1, 2, 5, 33] {
            let a = random(n, 100 + n as u64);
            let u = polar(Kernels::detected(), a.clone()).unwrap();
            assert!(farthest(&product(&u, &u), &Matrix::identity(n)) < 1e-6);
            let rest = product(&a.transposed(), &u.transposed());
            assert!(farthest(&rest, &rest.transposed()) < 1e-6);
            assert!(symmetric_eigen(Kernels::detected(), rest).0[n - 1] > -1e-6);
        }
        assert!(polar(Kernels::detected(), Matrix::zero(2)).is_none());
    }

    #[test]
    fn every_level_computes_the_same_bits() {
        let a = random(37, 5);
        let results: Vec<Vec<f64>> = Kernels::available()
            .into_iter()
            .map(|kernels| {
                let mut values = symmetric_eigen(kernels, product(&a, &a)).1.values;
                values.extend(polar(kernels, a.clone()).unwrap().values);
                values
            })
            .collect();
        assert!(results.iter().all(|r| r.iter().map(|v| v.to_bits()).eq(results[0].iter().map(|v| v.to_bits()))));
    }
}
