use roxanne_builder::*;
use roxanne_core::metric::Metric;
struct P(std::sync::Mutex<std::time::Instant>);
impl Observer for P {
    fn phase(&self, n: &'static str, t: u64, _: &'static str) {
        let mut g = self.0.lock().unwrap();
        eprintln!("{:?} -> {n} {t}", g.elapsed());
        *g = std::time::Instant::now();
    }
    fn advance(&self, _: u64) {}
}
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let _ = std::fs::remove_dir_all(&a[2]);
    let mut b =
        Builder::new(a[3].parse::<Metric>().unwrap()).observer(std::sync::Arc::new(P(std::sync::Mutex::new(std::time::Instant::now()))));
    let d = roxanne_core::dataset::Dataset::open(&a[1]).unwrap();
    let d = if a.len() > 4 { d.limit(a[4].parse().unwrap()) } else { d };
    b = b.dataset(d);
    println!("{:?}", b.plan().unwrap());
    match b.build(&a[2]) {
        Ok(r) => println!("{r:#?}"),
        Err(e) => println!("ERR {e}"),
    }
}
