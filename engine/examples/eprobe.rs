use roxanne_core::{dataset::Dataset, recall::*};
use roxanne_engine::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let ix = Index::open(&a[1], Budget::default()).unwrap();
    println!("{:?}", ix.info());
    let q = Dataset::open(&a[2]).unwrap();
    let t = Truth::read(&a[3]).unwrap();
    let nq: u64 = a[4].parse().unwrap();
    let w: usize = a[5].parse().unwrap();
    let mut s = ix.searcher().unwrap();
    let mut rows = Vec::new();
    q.read_rows_f32(0, nq as usize, &mut rows).unwrap();
    for l in [10, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160] {
        let (mut r, mut reads, mut hits, mut us, mut dist) = (0.0, 0, 0, 0, 0);
        for (i, query) in rows.chunks(q.dim()).enumerate() {
            let ans = s.search(query, &SearchParams { k: 10, list_size: l, beam_width: w }).unwrap();
            let keys: Vec<u64> = ans.hits.iter().map(|h| h.key.0).collect();
            r += recall_at_k(&t, i as u64, &keys, 10);
            reads += ans.stats.reads;
            hits += ans.stats.cache_hits;
            us += ans.stats.micros;
            dist += ans.stats.distances;
        }
        let f = nq as f64;
        println!(
            "L {l} W {w} recall {:.4} reads {:.1} free {:.1} dist {:.0} us {:.0}",
            r / f,
            reads as f64 / f,
            hits as f64 / f,
            dist as f64 / f,
            us as f64 / f
        );
    }
}
