//! `bench-gpu`: every stage and whole builds on one device, each beside its floor.

use super::print_json;
use crate::{failure::Failure, interrupt, progress, text};
use roxanne_builder::{
    BuildError, Device,
    backend::{
        Backend, BackendError,
        cpu::Cpu,
        cuda::{Cuda, driver::Driver, nvidia::Nvidia, timed},
        wgpu::Wgpu,
    },
    measure::{self, Plan, Roofs, Row},
};
use serde_json::{Value, json};
use std::{io::Write, sync::Arc};

/// The commit this binary was built from.
const COMMIT: &str = env!("ROXANNE_COMMIT");

/// The largest build that is also made with a clock around every launch.
const MOST_TIMED: u64 = 10_000_000;

/// Measure a device: pairs, rows and vectors a second beside its floors
#[derive(clap::Args)]
#[command(after_help = "Examples:
  roxanne bench-gpu --json > h200.json                       the whole of it, on the first CUDA device
  roxanne bench-gpu --device cpu --vectors 20000 --builds 20000
  roxanne bench-gpu --builds none                            stages alone

Vectors are of the generated mixture; nothing is written to disk. A build of 100M vectors takes about 110 GB of device\nmemory and 50 GB of RAM (`roxanne plan`).")]
pub(crate) struct Args {
    /// The device: cuda:N, wgpu:ADAPTER or cpu
    #[arg(long, default_value = "cuda:0")]
    device: Device,
    /// Vectors that single stages run on
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    vectors: u64,
    /// Dimensions of assign and leaf_knn
    #[arg(long, value_name = "D,D", value_delimiter = ',', default_values_t = [96, 128, 256, 768])]
    dims: Vec<usize>,
    /// Vectors of whole builds, or none
    #[arg(long, value_name = "N,N|none", default_value = "1000000,10000000,100000000")]
    builds: String,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    interrupt::leaves_at_once();
    let plan = Plan { vectors: args.vectors, dims: args.dims.clone(), builds: sizes(&args.builds)? };
    if let Some(dim) = plan.dims.iter().find(|dim| !(1..=8192).contains(*dim)) {
        return Err(Failure::usage(format!("--dims {dim}: a dimension is 1 to 8192")));
    }
    let untimed = || Ok(Vec::new());
    match &args.device {
        Device::Cuda(index) => {
            let device = Nvidia::open(*index).map_err(|e| device_error(&args.device, e))?;
            let facts = device.facts().clone();
            // Held to the end, so that no build pays for waking the device.
            let device: Arc<dyn Driver> = Arc::new(device);
            // What is left to the driver, and to the arena of each whole build after this one is gone.
            let cuda = Cuda::new(device.clone(), (facts.free_bytes / 2).min(16 << 30))?;
            let roofs = cuda.roofs(None)?;
            // Of the smallest build, if all devices have room for it.
            let on_device = || -> Result<Vec<Row>, BuildError> {
                let Some(&n) = plan.builds.iter().min().filter(|&&n| n <= MOST_TIMED) else { return Ok(Vec::new()) };
                let device = Nvidia::open(*index).map_err(|e| device_error(&args.device, e))?;
                timed::build_rows(device, n)
            };
            measured(cuda, roofs, (&facts.name, &facts.driver), &plan, args, &on_device, out)
        }
        Device::Wgpu(which) => {
            let wgpu = Wgpu::open(which.as_deref(), Cpu::default())?;
            let facts = wgpu.gpu().facts().clone();
            measured(wgpu, Roofs::default(), (&facts.name, &facts.driver), &plan, args, &untimed, out)
        }
        Device::Cpu => {
            let cpu = Cpu::default();
            let name = cpu.name();
            measured(cpu, Roofs::default(), (&name, "none"), &plan, args, &untimed, out)
        }
        Device::Auto => Err(Failure::usage("--device auto: name the device that is meant, such as cuda:0".to_string())),
    }
}

fn device_error(device: &Device, error: impl std::fmt::Display) -> BuildError {
    BackendError::Unavailable { device: device.to_string(), detail: error.to_string() }.into()
}

fn sizes(text: &str) -> Result<Vec<u64>, Failure> {
    if text == "none" {
        return Ok(Vec::new());
    }
    let size = |word: &str| word.trim().parse::<u64>().ok().filter(|n| (100..=4_000_000_000).contains(n));
    let wrong = || Failure::usage(format!("--builds {text}: write none, or numbers of vectors such as 1000000,10000000"));
    text.split(',').map(|word| size(word).ok_or_else(wrong)).collect()
}

/// Stages on `backend`, then what `on_device` tells of the device's own time in a build, then whole builds on the device by itself.
fn measured<B: Backend>(
    backend: B,
    roofs: Roofs,
    (device, driver): (&str, &str),
    plan: &Plan,
    args: &Args,
    on_device: &dyn Fn() -> Result<Vec<Row>, BuildError>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut rows = roofs.rows();
    let mut each = |row: Row| {
        progress::say(format_args!("{}", line(&row)));
        rows.push(row);
    };
    let stages = measure::stages(&backend, &roofs, plan, &mut each);
    let name = backend.name();
    drop(backend);
    let done = stages.and_then(|()| {
        on_device()?.into_iter().for_each(&mut each);
        measure::builds(&args.device, &roofs, plan, &mut each)
    });
    // What was measured is told, also when something then went wrong.
    if args.json {
        let rows: Vec<Value> = rows.iter().map(to_json).collect();
        let error = done.as_ref().err().map(ToString::to_string);
        print_json(out, &json!({"device": device, "driver": driver, "commit": COMMIT, "rows": rows, "error": error}))?;
    } else {
        writeln!(out, "{name}, commit {COMMIT}")?;
        rows.iter().try_for_each(|row| writeln!(out, "{}", line(row)))?;
    }
    Ok(done?)
}

fn line(row: &Row) -> String {
    let floor = row.floor.map_or(String::new(), |floor| format!("  {:5.1}% of {}", 100.0 * row.value / floor, text::rate(floor)));
    format!("{:<28} dim {:>4}  k {:>3}  {:>10} {}{floor}", row.name, row.dim, row.k, text::rate(row.value), row.unit)
}

fn to_json(row: &Row) -> Value {
    json!({"name": row.name, "dim": row.dim, "k": row.k, "value": row.value, "unit": row.unit, "floor": row.floor})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_none_or_numbers_of_vectors() {
        assert_eq!(sizes("none").unwrap(), [0u64; 0]);
        assert_eq!(sizes("1000, 5000").unwrap(), [1000, 5000]);
        assert!(["", "0", "1e6", "1000,,", "1M"].iter().all(|text| sizes(text).is_err()));
    }
}
