//! The driver of NVIDIA devices over a libcuda that plays them (`fake.c`): what it says when it cannot serve, the order of what it does,
//! and that it gives everything back. No GPU is needed; how a test gets the fake is told in `played`.

mod builds;
mod played;

use played::{with_fake, without_libcuda};
use roxanne_builder::{
    Device,
    backend::cuda::{
        driver::{Address, Arg, Driver, DriverError, Launch},
        nvidia::Nvidia,
        timed::Timed,
    },
};
use std::collections::BTreeMap;

fn first_device() -> Nvidia {
    Nvidia::open(0).expect("the fake's first device")
}

/// Why device `index` cannot be opened.
fn unavailable(index: usize) -> String {
    match Nvidia::open(index) {
        Err(DriverError::Unavailable(text)) => text,
        other => panic!("{other:?}"),
    }
}

/// Bytes of which no two chunks are equal.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes = std::iter::repeat_with(next).take(length.div_ceil(8)).flatten().collect::<Vec<u8>>();
    bytes.truncate(length);
    bytes
}

/// picked[i] = values[places[i]], of 32 bits: the one kernel that the fake computes.
fn pick(device: &Nvidia, values: Address, places: Address, count: u64, picked: Address) -> Result<(), DriverError> {
    let args = [Arg::Address(values), Arg::Address(places), Arg::U64(count), Arg::Address(picked)];
    device.launch(&Launch { stem: "groups", entry: "pick", grid: 1, block: 256, shared_bytes: 0, args: &args })
}

fn downloaded(device: &Nvidia, from: Address, bytes: usize) -> Vec<u8> {
    let mut to = vec![0; bytes];
    device.download(from, &mut to).expect("a download");
    to
}

#[test]
fn without_libcuda_it_is_said_what_to_install() {
    without_libcuda(|| {
        let told = unavailable(0);
        assert!(told.contains("libcuda.so") && told.contains("install the NVIDIA driver 525") && told.contains("--device cpu"), "{told}");
        assert_eq!(Nvidia::probe().unwrap_err(), DriverError::Unavailable(told));
    });
}

#[test]
fn an_old_driver_is_named_with_both_versions() {
    with_fake(&[("FAKE_CUDA_VERSION", "11080")], || {
        let told = unavailable(0);
        assert!(told.contains("11.8") && told.contains("12.0") && told.contains("525"), "{told}");
        assert_eq!(Nvidia::probe().unwrap_err(), DriverError::Unavailable(told));
    });
}

#[test]
fn a_machine_without_devices_says_so() {
    with_fake(&[("FAKE_CUDA_DEVICES", "0")], || {
        let told = unavailable(0);
        assert!(told.contains("NO_DEVICE") && told.contains("nvidia-smi") && told.contains("--device cpu"), "{told}");
    });
}

#[test]
fn all_devices_are_listed_with_what_they_are() {
    with_fake(&[("FAKE_CUDA_FREE_BYTES", "5000000000")], || {
        let facts = Nvidia::probe().unwrap();
        let told: Vec<_> = facts.iter().map(|f| (f.name.as_str(), f.driver.as_str(), f.capability, f.free_bytes)).collect();
        assert_eq!(told, [("Fake 0", "12.4", (9, 0), 5_000_000_000), ("Fake 1", "12.4", (6, 1), 5_000_000_000)]);
        assert_eq!((facts[0].memory_bytes, facts[0].shared_bytes, facts[0].multiprocessors), (16 << 30, 227 << 10, 132));
        // An open device says the same.
        assert_eq!(first_device().facts(), &facts[0]);
    });
}

#[test]
fn a_wrong_index_lists_what_there_is() {
    with_fake(&[], || {
        for index in [2, 7, usize::MAX] {
            let told = unavailable(index);
            assert!(told.contains(&format!("no device cuda:{index}")) && told.contains("cuda:0 (Fake 0), cuda:1 (Fake 1)"), "{told}");
        }
    });
}

#[test]
fn a_chip_that_is_too_old_is_refused() {
    with_fake(&[], || {
        let told = unavailable(1);
        assert!(told.contains("Fake 1") && told.contains("6.1") && told.contains("7.5") && told.contains("--device cpu"), "{told}");
    });
}

#[test]
fn what_is_offered_to_users_leaves_out_a_chip_that_is_too_old() {
    with_fake(&[], || {
        let found = roxanne_builder::device::probe();
        let cuda = |index: usize| found.iter().find(|f| f.device == Device::Cuda(index)).expect("a device that is listed");
        assert_eq!(cuda(0).what, Ok("Fake 0, compute capability 9.0, driver 12.4".to_owned()));
        // Why, and the way out: as when it is opened.
        assert_eq!(cuda(1).what, Err(unavailable(1)));
    });
}

#[test]
fn an_opening_that_fails_halfway_leaves_nothing() {
    with_fake(&[("FAKE_CUDA_PINNED", "5")], || {
        let told = unavailable(0);
        assert!(told.contains("pin") && told.contains("free some memory"), "{told}");
    });
}

#[test]
fn copies_through_many_chunks_keep_bytes_and_order() {
    with_fake(&[], || {
        let device = first_device();
        let slot = device.slot_bytes();
        for length in [0, 1, 255, slot - 1, slot, slot + 1, 7 * slot + 13] {
            let at = device.take(length as u64).unwrap();
            let (first, second) = (noise(length, 3), noise(length / 2, 5));
            // Any thread may call, and what was passed may go as soon as a call returns.
            std::thread::scope(|scope| scope.spawn(|| device.upload(at, &first.clone())).join().unwrap()).unwrap();
            device.upload(at, &second).unwrap();
            let back = downloaded(&device, at, length);
            assert!(back[..second.len()] == second && back[second.len()..] == first[second.len()..], "{length} bytes");
            device.give(at);
            // A second time is no harm.
            device.give(at);
        }
    });
}

#[test]
fn two_downloads_under_way_end_in_order() {
    with_fake(&[], || {
        let device = first_device();
        let (slot, count) = (device.slot_bytes(), 5);
        let bytes = noise(slot * count, 7);
        let at = device.take(bytes.len() as u64).unwrap();
        device.upload(at, &bytes).unwrap();
        let start = |index: usize| device.start_download(at + (index * slot) as u64, slot).unwrap();
        let mut landed = vec![0; slot];
        let mut under_way = start(0);
        for index in 1..count {
            let before = std::mem::replace(&mut under_way, start(index));
            // Other downloads do not use their slots.
            assert!(downloaded(&device, at + 1, 3 * slot) == bytes[1..][..3 * slot]);
            device.finish_download(before, &mut landed).unwrap();
            assert!(landed == bytes[(index - 1) * slot..][..slot], "download {index}");
        }
        device.finish_download(under_way, &mut landed).unwrap();
        assert!(landed == bytes[(count - 1) * slot..]);
    });
}

#[test]
fn a_download_whose_slot_was_filled_again_is_refused() {
    with_fake(&[], || {
        let device = first_device();
        let at = device.take(64).unwrap();
        device.upload(at, &noise(64, 9)).unwrap();
        let [first, second, third] = [0, 1, 2].map(|_| device.start_download(at, 64).unwrap());
        let mut landed = [0; 64];
        let told = device.finish_download(first, &mut landed).unwrap_err();
        assert!(matches!(told, DriverError::Refused(_)), "{told:?}");
        assert!(matches!(device.finish_download(second, &mut landed[1..]), Err(DriverError::Refused(_))));
        device.finish_download(third, &mut landed).unwrap();
        assert_eq!(landed[..], noise(64, 9));
        assert!(matches!(device.start_download(at, device.slot_bytes() + 1), Err(DriverError::Refused(_))));
    });
}

#[test]
fn launches_see_uploads_before_them_and_downloads_see_launches() {
    with_fake(&[], || {
        let device = first_device();
        // More rounds than an upload has slots: slots are waited for while launches still lie in their stream.
        let (rounds, count) = (40, 32);
        let [values, places, picked] = [4 * count, 8 * count, 4 * count * rounds].map(|bytes| device.take(bytes).unwrap());
        let backwards: Vec<u8> = (0..count).rev().flat_map(u64::to_le_bytes).collect();
        let of_round = |round: u64| move |i: u64| ((1000 * round + i) as u32).to_le_bytes();
        device.upload(places, &backwards).unwrap();
        for round in 0..rounds {
            // The launch before still reads what this writes.
            device.upload(values, &(0..count).flat_map(of_round(round)).collect::<Vec<u8>>()).unwrap();
            pick(&device, values, places, count, picked + 4 * count * round).unwrap();
        }
        let expected: Vec<u8> = (0..rounds).flat_map(|round| (0..count).rev().flat_map(of_round(round))).collect();
        let ticket = device.start_download(picked, expected.len()).unwrap();
        assert_eq!(downloaded(&device, picked, expected.len()), expected);
        let mut landed = vec![0; expected.len()];
        device.finish_download(ticket, &mut landed).unwrap();
        assert_eq!(landed, expected);
    });
}

#[test]
fn fills_and_copies_on_the_device_are_in_order_with_all_else() {
    with_fake(&[], || {
        let device = first_device();
        let [a, b] = [0, 1].map(|_| device.take(100).unwrap());
        device.fill(a, 100, 1).unwrap();
        device.upload(a, &[2; 50]).unwrap();
        device.copy(b, a, 100).unwrap();
        device.fill(a, 100, 3).unwrap();
        device.fill(b, 0, 4).unwrap();
        assert_eq!(downloaded(&device, b, 100), [[2; 50], [1; 50]].concat());
        assert_eq!(downloaded(&device, a, 100), [3; 100]);
    });
}

#[test]
fn a_timer_tells_seconds() {
    with_fake(&[], || {
        let device = first_device();
        let at = device.take(8).unwrap();
        // The fake's events are always 1,500 ms apart.
        assert_eq!(device.time(&mut || device.fill(at, 8, 1)).unwrap(), 1.5);
        assert!(device.time(&mut || Err(DriverError::Refused("no".into()))).is_err());
    });
}

#[test]
fn a_clock_tells_what_each_kernel_took() {
    with_fake(&[], || {
        let device = Timed::new(first_device());
        let at = device.take(64).unwrap();
        device.fill(at, 64, 0).unwrap();
        let args = [Arg::Address(at), Arg::Address(at), Arg::U64(1), Arg::Address(at)];
        for _ in 0..2 {
            device.launch(&Launch { stem: "groups", entry: "pick", grid: 1, block: 256, shared_bytes: 0, args: &args }).unwrap();
        }
        device.upload(at, &[1; 8]).unwrap();
        assert_eq!(device.take_spent(), BTreeMap::from([("fill", 1.5), ("groups", 3.0)]));
        assert!(device.take_spent().is_empty());
        device.give(at);
    });
}

#[test]
fn out_of_memory_leaves_the_device_usable() {
    with_fake(&[("FAKE_CUDA_FREE_BYTES", "1000")], || {
        let device = first_device();
        for asked in [1001, 1 << 40, u64::MAX] {
            assert_eq!(device.take(asked), Err(DriverError::OutOfMemory { asked }));
        }
        let most = device.take(1000).unwrap();
        assert_eq!(device.take(1), Err(DriverError::OutOfMemory { asked: 1 }));
        device.upload(most, &[5; 1000]).unwrap();
        assert_eq!(downloaded(&device, most, 1000), [5; 1000]);
        device.give(most);
        device.take(1000).unwrap();
    });
}

#[test]
fn after_a_sticky_error_every_call_says_lost() {
    with_fake(&[("FAKE_CUDA_LOST_AT_LAUNCH", "2")], || {
        let device = first_device();
        let at = device.take(64).unwrap();
        let mut landed = [0; 8];
        device.fill(at, 64, 0).unwrap();
        let ticket = device.start_download(at, 8).unwrap();
        pick(&device, at, at, 1, at).unwrap();
        device.synchronize().unwrap();
        // Queued, it has not run yet.
        pick(&device, at, at, 1, at).unwrap();
        let first = device.synchronize().unwrap_err();
        assert!(matches!(&first, DriverError::Lost(why) if why.contains("CUDA_ERROR_ILLEGAL_ADDRESS (700)")), "{first:?}");

        device.give(at);
        let calls = [
            device.take(8).map(drop),
            device.upload(at, &[1]),
            device.download(at, &mut landed),
            device.start_download(at, 8).map(drop),
            device.finish_download(ticket, &mut landed),
            device.fill(at, 8, 1),
            device.copy(at, at + 8, 8),
            pick(&device, at, at, 1, at),
            device.synchronize(),
            device.time(&mut || Ok(())).map(drop),
        ];
        for (number, call) in calls.into_iter().enumerate() {
            assert_eq!(call, Err(first.clone()), "call {number}");
        }
        drop(device);
        assert!(unavailable(0).contains("lost"));
    });
}

#[test]
fn a_loss_by_a_code_that_is_younger_than_the_bindings_is_told() {
    with_fake(&[("FAKE_CUDA_LOST_AT_LAUNCH", "1"), ("FAKE_CUDA_LOST_BY", "721")], || {
        let device = first_device();
        let at = device.take(64).unwrap();
        pick(&device, at, at, 1, at).unwrap();
        let told = device.synchronize().unwrap_err();
        assert!(matches!(&told, DriverError::Lost(why) if why.contains("(721)")), "{told:?}");
    });
}

#[test]
fn a_refused_image_is_named() {
    with_fake(&[("FAKE_CUDA_REFUSES_IMAGES", "1")], || {
        let device = first_device();
        let at = device.take(64).unwrap();
        for _ in 0..2 {
            let told = pick(&device, at, at, 1, at).unwrap_err();
            let said = |text: &String| text.contains("groups for sm_90") && text.contains("no kernel image");
            assert!(matches!(&told, DriverError::Refused(text) if said(text)), "{told:?}");
        }
        device.synchronize().unwrap();
    });
}

#[test]
fn a_launch_gets_the_shared_memory_that_it_asks_for() {
    with_fake(&[], || {
        let device = first_device();
        let at = device.take(64).unwrap();
        device.fill(at, 64, 0).unwrap();
        let args = [Arg::Address(at), Arg::Address(at), Arg::U64(1), Arg::Address(at)];
        let launch =
            |shared_bytes, args: &[Arg]| device.launch(&Launch { stem: "groups", entry: "pick", grid: 1, block: 256, shared_bytes, args });
        for shared_bytes in [48 << 10, 227 << 10, 1 << 10] {
            launch(shared_bytes, &args).unwrap();
        }
        for refused in [launch((227 << 10) + 1, &args), launch(0, &args[1..])] {
            assert!(matches!(&refused, Err(DriverError::Refused(text)) if text.contains("pick")), "{refused:?}");
        }
        device.synchronize().unwrap();
    });
}

#[test]
fn memory_may_be_given_back_with_work_under_way() {
    with_fake(&[], || {
        let device = first_device();
        let at = device.take(64).unwrap();
        device.upload(at, &[1; 64]).unwrap();
        device.give(at);
    });
}

#[test]
fn a_device_may_be_dropped_by_any_thread_with_work_under_way() {
    with_fake(&[], || {
        let (device, other) = (first_device(), first_device());
        let at = device.take(64).unwrap();
        device.upload(at, &[3; 64]).unwrap();
        device.start_download(at, 64).unwrap();
        std::thread::spawn(move || drop(device)).join().unwrap();
        // Another owner of the same device goes on.
        let at = other.take(8).unwrap();
        other.fill(at, 8, 1).unwrap();
        assert_eq!(downloaded(&other, at, 8), [1; 8]);
    });
}
