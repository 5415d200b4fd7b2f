//! Records of a byte a coordinate: more of them a page, and hits ranked by what they hold.

use roxanne_builder::{BuildError, BuildParams, Builder, Device};
use roxanne_core::{ErrorClass, format::record::Stored, metric::Metric};
use roxanne_engine::SearchParams;
use roxanne_tests::{dataset, open, recall, rows, scratch, truth};

#[test]
fn sq8_records_find_what_whole_ones_find_in_fewer_reads() {
    let (base, queries) = ("synth:n=4000,dim=96,clusters=32", "synth:n=100,dim=96,clusters=32,part=query");
    for (metric, shards) in [(Metric::L2, 1), (Metric::Cosine, 3), (Metric::InnerProduct, 1), (Metric::Manhattan, 1)] {
        let dir = scratch();
        let made = |name: &str, stored: Stored| {
            let path = dir.path().join(name);
            let params = BuildParams { stored, ..BuildParams::default() };
            let builder = Builder::new(metric).device(Device::Cpu).params(params).shards(shards).dataset(dataset(base, metric));
            builder.build(&path).unwrap();
            open(&path)
        };
        let (full, dense) = (made("full", Stored::Full), made("sq8", Stored::Sq8));
        assert_eq!((full.info().stored, dense.info().stored), (Stored::Full, Stored::Sq8));
        assert!(dense.info().records_per_page > 2 * full.info().records_per_page);
        let (queries, truth) = (rows(queries, metric), truth(base, queries, metric));
        let [of_full, of_dense] = [&full, &dense].map(|index| recall(index, &queries, &truth, 100));
        assert!(of_dense > of_full - 0.03 && of_dense > 0.9, "{metric}: {of_dense} of {of_full}");
        let reads = |index: &roxanne_engine::Index| {
            let search = |query: &Vec<f32>| index.search(query, &SearchParams::DEFAULT).unwrap().stats.reads;
            queries.iter().map(search).sum::<u64>()
        };
        assert!(reads(&dense) * 10 < reads(&full) * 9, "{metric}: {} of {}", reads(&dense), reads(&full));
        // Distances are those of the vectors, nearly; and exact search ranks by the same.
        for query in queries.iter().take(10) {
            let [a, b] = [&full, &dense].map(|index| index.exact(&[query], 10, None).unwrap().remove(0).hits);
            for (a, b) in a.iter().zip(&b) {
                assert!((a.distance - b.distance).abs() <= 0.05 * a.distance.abs().max(0.1), "{metric}: {a:?} {b:?}");
            }
            let params = SearchParams { k: 10, list_size: 4000, ..SearchParams::DEFAULT };
            assert_eq!(dense.search(query, &params).unwrap().hits, b, "{metric}");
        }
        let vector = dense.get("7").unwrap().unwrap();
        let whole = full.get("7").unwrap().unwrap();
        let length = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt();
        let scale = if metric == Metric::Cosine { length(&whole) } else { 1.0 };
        let off: Vec<f32> = vector.iter().zip(&whole).map(|(a, b)| a - b / scale).collect();
        assert!(length(&off) < 0.05 * length(&vector), "{metric}");
        assert_eq!(roxanne_engine::verify::verify(dir.path().join("sq8"), &mut |_, _| ()).unwrap().unreachable, 0);
    }
}

#[test]
fn bytes_are_dense_already() {
    let dir = scratch();
    let params = BuildParams { stored: Stored::Sq8, ..BuildParams::default() };
    let builder = Builder::new(Metric::L2).params(params).input("synth:n=100,dim=8,type=u8").unwrap();
    let error = builder.build(dir.path().join("index")).unwrap_err();
    assert!(matches!(error, BuildError::Stored { .. }) && error.class() == ErrorClass::Usage, "{error}");
}
