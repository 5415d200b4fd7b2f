//! `info`: what an index is, from its headers and codebook alone, so that it costs nothing however large the index is.

use super::{check_index, index_json, keys_text, print_json};
use crate::{failure::Failure, interrupt, text};
use roxanne_core::{
    build_codes::CODEC_BYTES,
    format::{self, FormatError, blob::BlobReader, keys::Keys, manifest::Manifest, nav::Nav, record::RecordLayout, superblock::Superblock},
    pq::Codebook,
};
use roxanne_engine::{IndexInfo, collection::is_collection};
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Show what an index is
#[derive(clap::Args)]
#[command(after_help = "Example:
  roxanne info my.rx --json

Headers are checked, files are held against their lengths; `roxanne verify` reads every byte.")]
pub(crate) struct Args {
    /// The directory of an index or a collection
    #[arg(value_name = "IDX")]
    index: PathBuf,
    /// One JSON object on stdout
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    interrupt::leaves_at_once();
    check_index(&args.index)?;
    if is_collection(&args.index) {
        return super::collection::info(&args.index, args.json, out);
    }
    let info = read(&args.index)?;
    if args.json {
        print_json(out, &index_json(&info))?
    } else {
        print(&info, out)?
    }
    Ok(())
}

/// The same as an opened index tells, without loading it; how it would be read is left empty.
fn read(path: &Path) -> Result<IndexInfo, FormatError> {
    let manifest = Manifest::read(path)?;
    let graph_path = path.join(format::GRAPH_FILE);
    let superblock = Superblock::read(&graph_path)?;
    let max_degree = usize::try_from(superblock.max_degree).unwrap_or(usize::MAX).min(1 << 16);
    let stored = manifest.stored(path)?;
    let element = stored.element(manifest.element);
    let Some(layout) = element.and_then(|element| RecordLayout::new(element, manifest.dim, max_degree, manifest.n)) else {
        let detail = format!("a degree of {} fits no page", superblock.max_degree);
        return Err(FormatError::Corrupt { path: graph_path, offset: 0, detail });
    };
    let payload = |name: &str| manifest.file(name).map_or(0, |file| file.payload_bytes);
    let blob = |name: &str| BlobReader::open(&path.join(name), format::file_id(manifest.generation, name), payload(name));
    let mut nav_head = [0; 8];
    blob(format::NAV_FILE)?.read_at(0, &mut nav_head)?;
    let [nav_nodes, nav_degree] = [0, 4].map(|at| nav_head[at..].first_chunk::<4>().map_or(0, |b| u64::from(u32::from_le_bytes(*b))));
    let codebook = blob(format::CODEBOOK_FILE)?;
    let bytes = codebook.read_all()?;
    let parsed = Codebook::from_bytes(bytes.get(CODEC_BYTES..).unwrap_or_default());
    let parsed = parsed.map_err(|error| codebook.corrupt(0, error.to_string()))?;
    let keys = Keys::open(blob(format::KEYS_FILE)?, manifest.n)?;
    let codes = payload(format::CODES_FILE);
    Ok(IndexInfo {
        path: path.to_path_buf(),
        generation: manifest.generation,
        n: manifest.n,
        dim: manifest.dim,
        element: manifest.element,
        stored,
        metric: manifest.metric,
        max_degree,
        code_bytes: parsed.subspaces(),
        rotated: parsed.is_rotated(),
        nav_nodes,
        page_bytes: layout.page_bytes,
        record_bytes: layout.record_bytes,
        records_per_page: layout.per_page,
        page_count: superblock.page_count,
        index_bytes: manifest.total_bytes(),
        resident_bytes: codes.saturating_add(parsed.resident_bytes()).saturating_add(Nav::ram_bytes(nav_nodes, nav_degree)),
        kept_bytes: 0,
        all_resident: false,
        adjacency_in_ram: false,
        string_keys: keys.are_strings(),
        row_keys: keys.are_rows(),
        params: manifest.params,
        reader: "",
        direct: false,
    })
}

fn print(info: &IndexInfo, out: &mut dyn Write) -> io::Result<()> {
    let page = text::bytes(info.page_bytes as u64);
    let lines = [
        ("index", info.path.display().to_string()),
        ("generation", format!("{:016x}", info.generation)),
        ("vectors", format!("{} x {} {}, {}", text::count(info.n), info.dim, info.element, info.metric)),
        ("keys", keys_text(info).to_string()),
        (
            "graph",
            format!(
                "degree {}, {} pages of {page}, {} nodes each, vectors {}",
                info.max_degree,
                text::count(info.page_count),
                info.records_per_page,
                info.stored
            ),
        ),
        ("codes", format!("{} bytes a vector{}", info.code_bytes, if info.rotated { ", rotated" } else { "" })),
        ("navigation", format!("{} nodes", text::count(info.nav_nodes))),
        ("on disk", text::bytes(info.index_bytes)),
        ("in RAM", text::bytes(info.resident_bytes)),
    ];
    text::pairs(out, &lines)?;
    writeln!(out, "\nbuilt with")?;
    let params: Vec<(&str, String)> = info.params.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    text::pairs(out, &params)
}
