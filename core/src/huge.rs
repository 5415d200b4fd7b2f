//! Large arrays in huge pages: fewer faults while they fill, and no missed translation at every random look into them.
//!
//! Only advice: where the kernel has no transparent huge pages the array is an ordinary one.
#![allow(unsafe_code)]

use bytemuck::Zeroable;
use rustix::mm::{Advice, madvise};

const HUGE_PAGE: usize = 2 << 20;

/// `n` zeroed elements, whose memory comes into being when it is first touched.
pub fn zeroed<T: Zeroable>(n: usize) -> Vec<T> {
    let mut array: Vec<T> = bytemuck::zeroed_vec(n);
    let (start, bytes) = (array.as_mut_ptr() as usize, size_of::<T>() * n);
    let first = start.next_multiple_of(HUGE_PAGE);
    let whole = (start + bytes).saturating_sub(first) / HUGE_PAGE * HUGE_PAGE;
    if whole > 0 {
        // SAFETY: [first, first + whole) lies inside the array, which is ours alone, and this advice changes neither content nor rights.
        // An error means no huge pages, which is no harm.
        let _ = unsafe { madvise(array.as_mut_ptr().cast::<u8>().add(first - start).cast(), whole, Advice::LinuxHugepage) };
    }
    array
}

#[cfg(test)]
mod tests {
    #[test]
    fn arrays_of_any_size_are_zeroed_and_writable() {
        for n in [0, 1, 1000, 1 << 20, 3 << 20] {
            let mut array: Vec<u64> = super::zeroed(n);
            assert_eq!(array.len(), n);
            assert!(array.iter().all(|&x| x == 0));
            array.iter_mut().for_each(|x| *x = 7);
        }
    }
}
