//! Every backend gives equal results: one suite, stamped on each that this machine has.
//!
//! `cpu` runs at every SIMD level; `cuda-host` is the CUDA backend over kernels that the C++ compiler made for the host, at both of its
//! architectures; `wgpu` and `cuda` run where there is an adapter or a device. One that is absent prints `SKIPPED name: reason`, which
//! `REQUIRE_BACKENDS=cpu,cuda` turns into a failure. Expected results come from plain loops (`oracle`), never from another backend.

// All of this is test code, also what stands outside of a `#[test]`.
#![allow(clippy::unwrap_used)]

mod builds;
mod cases;
mod cuda_host;
mod kernels;
mod oracle;
mod present;
mod stages;

/// The suite for one backend: its label, and how to open it.
macro_rules! conformance {
    ($($name:ident, $label:literal, $open:expr, $effort:expr;)*) => {$(
        mod $name {
            use crate::{builds, cases::Effort, present::present, stages};

            #[test]
            fn assign() {
                present($label, $open, |backend| stages::assign(&backend, $effort));
            }

            #[test]
            fn leaf_knn() {
                present($label, $open, |backend| stages::leaf_knn(&backend, $effort));
            }

            #[test]
            fn merge() {
                present($label, $open, |backend| stages::merge(&backend, $effort));
            }

            #[test]
            fn prune() {
                present($label, $open, |backend| stages::prune(&backend, $effort));
            }

            #[test]
            fn encode() {
                present($label, $open, |backend| stages::encode(&backend, $effort));
            }

            #[test]
            fn moves() {
                present($label, $open, |backend| stages::moves(&backend, $effort));
            }

            #[test]
            fn whole_graphs() {
                present($label, $open, |backend| builds::graphs(&backend, $effort));
            }
        }
    )*};
}

conformance! {
    cpu_scalar, "cpu", crate::present::cpu("scalar"), Effort::Whole;
    cpu_avx2, "cpu", crate::present::cpu("avx2"), Effort::Whole;
    cpu_avx512, "cpu", crate::present::cpu("avx512"), Effort::Whole;
    cpu_neon, "cpu", crate::present::cpu("neon"), Effort::Whole;
    cuda_host_75, "cuda-host", crate::cuda_host::open(750), Effort::Small;
    cuda_host_80, "cuda-host", crate::cuda_host::open(800), Effort::Small;
    wgpu, "wgpu", crate::present::wgpu(), Effort::Small;
    cuda, "cuda", crate::present::cuda(), Effort::of_device();
}

/// Shown in every run of the tests (.config/nextest.toml): a line for each backend that was not judged.
#[test]
fn what_is_skipped_is_said() {
    fn said<B>(label: &str, opened: Result<B, String>) {
        present::present(label, opened, |_| {});
    }
    ["scalar", "avx2", "avx512", "neon"].into_iter().for_each(|level| said("cpu", present::cpu(level)));
    said("cuda-host", cuda_host::open(800));
    said("wgpu", present::wgpu());
    said("cuda", present::cuda());
}
