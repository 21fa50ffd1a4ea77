//! What clients ask of shared memory, in any order: nothing outside a file or a region is read,
//! and the regions that there are keep to the bounds.

use std::fs::{OpenOptions, write};
use std::sync::{Arc, LazyLock};

use jitney::device::Inventory;
use jitney::model::SharedMemoryPolicy;
use jitney::serving::{RegionKind, RegionPart, SharedMemory};
use tempfile::TempDir;

const FILE_BYTES: u64 = 64;
const MOST_REGIONS: usize = 3;
const MOST_BYTES: u64 = 100;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().unwrap());
static INVENTORY: LazyLock<Arc<Inventory>> = LazyLock::new(|| Arc::new(Inventory::detect()));

pub(crate) fn check(sent: &[u8]) {
    let file = FOLDER.path().join("jitney-file");
    write(&file, [7; FILE_BYTES as usize]).unwrap();
    let policy = SharedMemoryPolicy {
        prefix: Some(FOLDER.path().join("jitney-")),
        cuda: true,
        max_regions: MOST_REGIONS,
        max_bytes: MOST_BYTES,
    };
    let memory = SharedMemory::open(policy, Arc::clone(&INVENTORY)).unwrap();
    let mut script = Script(sent);
    while !script.0.is_empty() {
        act(&memory, &mut script);
        let regions = memory.regions(RegionKind::System, "").unwrap();
        assert!(regions.len() <= MOST_REGIONS);
        assert!(regions.iter().map(|region| region.bytes).sum::<u64>() <= MOST_BYTES);
    }
}

/// The bytes that say what is done. Where they end, they go on as zeros.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> u8 {
        let (byte, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *byte
    }

    fn some(&mut self) -> Vec<u8> {
        let length = self.byte();
        (0..length % 80).map(|_| self.byte()).collect()
    }

    /// Near to what there is, or anything.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::from_le_bytes([0; 8].map(|_: u8| self.byte())),
            small => u64::from(small) / 2,
        }
    }

    /// One of a few, so that they meet each other.
    fn name(&mut self) -> String {
        format!("r{}", self.byte() % 5)
    }

    fn key(&mut self) -> String {
        match self.byte() {
            255 => String::from_utf8_lossy(&self.some()).into_owned(),
            _ => "/jitney-file".to_owned(),
        }
    }

    fn part(&mut self) -> RegionPart {
        RegionPart {
            region: self.name(),
            offset: self.number(),
            bytes: self.number(),
        }
    }
}

fn act(memory: &SharedMemory, script: &mut Script<'_>) {
    match script.byte() % 8 {
        0 | 1 => register(memory, script),
        2 => register_cuda(memory, script),
        3 => memory.unregister(RegionKind::System, &script.name()),
        4 => memory.unregister(RegionKind::Cuda, ""),
        5 => read(memory, &script.part()),
        6 => write_to(memory, &script.part(), &script.some()),
        _ => resize(u64::from(script.byte())),
    }
}

/// What a client can do at any time to a file of its own.
fn resize(length: u64) {
    let file = OpenOptions::new()
        .write(true)
        .open(FOLDER.path().join("jitney-file"));
    file.unwrap().set_len(length).unwrap();
}

fn register_cuda(memory: &SharedMemory, script: &mut Script<'_>) {
    let (name, handle) = (script.name(), script.some());
    let (device, bytes) = (script.number().cast_signed(), script.number());
    // Where there is a GPU, no handle of these is one.
    let refused = memory.register_cuda(&name, &handle, device, bytes);
    assert!(!refused.unwrap_err().message.is_empty());
}

fn register(memory: &SharedMemory, script: &mut Script<'_>) {
    let (name, key) = (script.name(), script.key());
    let (offset, bytes) = (script.number(), script.number());
    let taken = memory.register_system(&name, &key, offset, bytes);
    match taken {
        Ok(()) => {
            assert_eq!(key.trim_start_matches('/'), "jitney-file");
            let end = offset.checked_add(bytes).unwrap();
            assert!(bytes > 0 && end <= u64::from(u8::MAX));
        }
        Err(refused) => assert!(!refused.message.is_empty()),
    }
}

fn read(memory: &SharedMemory, part: &RegionPart) {
    let Ok(span) = memory.span(part) else {
        return;
    };
    // The file may have become shorter.
    if let Ok(data) = span.read() {
        assert_eq!(data.len() as u64, part.bytes);
    }
}

fn write_to(memory: &SharedMemory, part: &RegionPart, data: &[u8]) {
    let Ok(span) = memory.span(part) else {
        return;
    };
    let written = span.write(data);
    assert!(written.is_err() || data.len() as u64 <= part.bytes);
}
