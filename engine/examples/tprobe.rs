use roxanne_core::{dataset::Dataset, recall::*, metric::Metric};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let b = Dataset::open(&a[1]).unwrap().limit(a[3].parse().unwrap());
    let q = Dataset::open(&a[2]).unwrap().limit(1000);
    exact_truth(&b, &q, Metric::L2, 10, &mut |_| {}).unwrap().write(&a[4]).unwrap();
}
