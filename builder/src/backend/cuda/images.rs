//! The kernels' images, made ahead of time (kernels/compile.py) and carried in the binary: machine code for the chips that were known
//! then, PTX for the driver to compile on all others. An image is packed with zlib, whose checksum and length are held against what comes
//! out, so that the driver is never given a damaged one.

use super::driver::{Arg, DriverError};

/// What an image runs on, by compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// Machine code: chips of the same major version whose minor one is not smaller.
    Cubin(u32, u32),
    /// PTX: all chips from this one on.
    Ptx(u32, u32),
}

/// One stem for one target.
#[derive(Debug)]
struct Image {
    stem: &'static str,
    target: Target,
    /// Its length when unpacked.
    bytes: usize,
    packed: &'static [u8],
}

/// One kernel, and the bytes of each of its arguments.
#[derive(Debug)]
struct Entry {
    stem: &'static str,
    name: &'static str,
    widths: &'static [u8],
}

include!("../../../../kernels/built/images.rs");

/// What the driver loads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Loadable {
    /// What messages call it: `prune for sm_90`.
    pub(crate) name: String,
    /// Machine code, or PTX with the zero that ends it.
    pub(crate) code: Vec<u8>,
}

/// The image of a stem for a device.
///
/// # Errors
/// `Refused` for a stem that was not built, a device older than all images, or a damaged image.
pub(crate) fn image(stem: &str, capability: (u32, u32)) -> Result<Loadable, DriverError> {
    unpack(choose(IMAGES, stem, capability)?)
}

/// Whether `args` are what an entry takes, in number and width: past this the driver reads as many arguments as the entry declares.
///
/// # Errors
/// `Refused` for an entry that no image has, or other arguments.
pub(crate) fn check_args(stem: &str, entry: &str, args: &[Arg]) -> Result<(), DriverError> {
    let Some(declared) = ENTRIES.iter().find(|each| each.stem == stem && each.name == entry) else {
        return Err(DriverError::Refused(format!("no kernel {entry} in {stem}.cu: build the kernels again (make kernels)")));
    };
    let widths: Vec<u8> = args.iter().map(|arg| if matches!(arg, Arg::U32(_)) { 4 } else { 8 }).collect();
    if widths != declared.widths {
        return Err(DriverError::Refused(format!("{entry} takes arguments of {:?} bytes, was given {widths:?}", declared.widths)));
    }
    Ok(())
}

/// The cubin nearest below the device, or else the newest PTX that it takes.
fn choose<'a>(images: &'a [Image], stem: &str, (major, minor): (u32, u32)) -> Result<&'a Image, DriverError> {
    let rank = |image: &Image| match image.target {
        Target::Cubin(chip_major, chip_minor) => (chip_major == major && chip_minor <= minor).then_some((true, chip_major, chip_minor)),
        Target::Ptx(from_major, from_minor) => ((from_major, from_minor) <= (major, minor)).then_some((false, from_major, from_minor)),
    };
    let fitting = images.iter().filter(|image| image.stem == stem && rank(image).is_some());
    fitting.max_by_key(|image| rank(image)).ok_or_else(|| {
        DriverError::Refused(format!(
            "no image of {stem}.cu for compute capability {major}.{minor}: kernels are built for 7.5 and newer; use --device cpu"
        ))
    })
}

fn unpack(image: &Image) -> Result<Loadable, DriverError> {
    let name = match image.target {
        Target::Cubin(major, minor) => format!("{} for sm_{major}{minor}", image.stem),
        Target::Ptx(major, minor) => format!("{} for compute_{major}{minor}", image.stem),
    };
    match miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(image.packed, image.bytes) {
        Ok(mut code) if code.len() == image.bytes => {
            if matches!(image.target, Target::Ptx(..)) {
                code.push(0);
            }
            Ok(Loadable { name, code })
        }
        _ => Err(DriverError::Refused(format!(
            "the kernel image {name} in this program is damaged: install the program again, or use --device cpu"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An image that says for which target it was chosen.
    const fn marked(target: Target) -> Image {
        Image { stem: "a", target, bytes: 0, packed: &[] }
    }

    const TARGETS: [Target; 6] =
        [Target::Ptx(7, 5), Target::Ptx(8, 0), Target::Cubin(8, 0), Target::Cubin(8, 6), Target::Cubin(8, 9), Target::Cubin(9, 0)];

    fn chosen(capability: (u32, u32)) -> Option<Target> {
        let images = TARGETS.map(marked);
        choose(&images, "a", capability).ok().map(|image| image.target)
    }

    #[test]
    fn a_device_gets_the_cubin_nearest_below_it_and_ptx_where_its_generation_has_none() {
        for (capability, expected) in [
            ((8, 0), Some(Target::Cubin(8, 0))),
            ((8, 6), Some(Target::Cubin(8, 6))),
            ((8, 7), Some(Target::Cubin(8, 6))),
            ((8, 9), Some(Target::Cubin(8, 9))),
            ((9, 0), Some(Target::Cubin(9, 0))),
            ((7, 5), Some(Target::Ptx(7, 5))),
            ((10, 0), Some(Target::Ptx(8, 0))),
            ((12, 1), Some(Target::Ptx(8, 0))),
            ((7, 0), None),
            ((6, 1), None),
        ] {
            assert_eq!(chosen(capability), expected, "{capability:?}");
        }
    }

    #[test]
    fn every_stem_was_built_for_every_target_and_unpacks() {
        assert!(!IMAGES.is_empty() && !ENTRIES.is_empty());
        for entry in ENTRIES {
            for target in TARGETS {
                let image = IMAGES.iter().find(|image| image.stem == entry.stem && image.target == target).unwrap();
                let loadable = unpack(image).unwrap();
                match target {
                    Target::Cubin(..) => assert!(loadable.code.starts_with(b"\x7fELF"), "{}", loadable.name),
                    Target::Ptx(major, minor) => {
                        let text = String::from_utf8(loadable.code).unwrap();
                        assert!(text.contains(&format!(".target sm_{major}{minor}")) && text.contains(".version 8.0"));
                        assert!(text.contains(&format!(".entry {}(", entry.name)) && text.ends_with('\0'), "{}", entry.name);
                    }
                }
            }
        }
    }

    #[test]
    fn an_unknown_stem_or_an_old_device_is_told_what_to_do() {
        assert!(image("nothing", (9, 0)).unwrap_err().to_string().contains("nothing.cu"));
        let told = image(IMAGES[0].stem, (7, 0)).unwrap_err().to_string();
        assert!(told.contains("7.0") && told.contains("--device cpu"), "{told}");
    }

    #[test]
    fn an_image_with_any_one_byte_changed_is_refused() {
        let whole = IMAGES.iter().min_by_key(|image| image.packed.len()).unwrap();
        let good = unpack(whole).unwrap();
        for place in 0..whole.packed.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = whole.packed.to_vec();
                bytes[place] ^= flip;
                let damaged = Image { packed: bytes.leak(), ..*whole };
                match unpack(&damaged) {
                    // A few bits of the packed form mean nothing; then the image is whole.
                    Ok(loadable) => assert_eq!(loadable, good, "byte {place}"),
                    Err(error) => assert!(error.to_string().contains("damaged"), "{error}"),
                }
            }
        }
        let cut = Image { packed: &whole.packed[..whole.packed.len() - 1], ..*whole };
        assert!(unpack(&cut).is_err());
    }

    #[test]
    fn arguments_that_an_entry_does_not_take_are_refused() {
        let entry = ENTRIES.iter().find(|entry| entry.widths.len() > 1).unwrap();
        let right: Vec<Arg> = entry.widths.iter().map(|&width| if width == 4 { Arg::U32(1) } else { Arg::U64(1) }).collect();
        check_args(entry.stem, entry.name, &right).unwrap();
        assert!(check_args(entry.stem, entry.name, &right[1..]).is_err());
        let mut wrong = right.clone();
        wrong[0] = if entry.widths[0] == 4 { Arg::Address(0) } else { Arg::U32(0) };
        let told = check_args(entry.stem, entry.name, &wrong).unwrap_err().to_string();
        assert!(told.contains(entry.name), "{told}");
        assert!(check_args(entry.stem, "no_such_entry", &right).unwrap_err().to_string().contains("make kernels"));
    }
}
