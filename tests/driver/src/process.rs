//! What the driver knows of the process that loaded it.

use std::alloc::Layout;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::code::{
    Code, INVALID_CONTEXT, INVALID_DEVICE, INVALID_VALUE, NO_DEVICE, NOT_INITIALIZED,
    OPERATING_SYSTEM, OUT_OF_MEMORY, SUCCESS,
};
use crate::control::Control;
use crate::memory::{self, Name};

/// A GPU's memory begins here times one more than its number: nowhere where the host has memory, so that
/// whoever takes such an address for the host's ends by it, as with the real driver.
const FIRST: u64 = 1 << 52;
/// Allocations begin at multiples of this.
const PAGE: u64 = 1 << 21;

thread_local! {
    /// The GPU whose context this thread has.
    static CURRENT: Cell<Option<u32>> = const { Cell::new(None) };
}

static PROCESS: Mutex<Process> = Mutex::new(Process::new());

/// What the driver knows of the process that loaded it.
pub(crate) struct Process {
    /// GPUs that were there when the driver was started; none before.
    pub(crate) devices: Option<u32>,
    /// Whoever holds a GPU's context, counted.
    contexts: BTreeMap<u32, u64>,
    calls: BTreeMap<u32, u64>,
    lost: BTreeMap<u32, Code>,
    pub(crate) allocations: BTreeMap<u64, Allocation>,
    pub(crate) pinned: BTreeMap<usize, Layout>,
    pub(crate) streams: BTreeSet<usize>,
    /// A copy to a GPU's memory that has returned, and is not there yet.
    pub(crate) under_way: Option<(u64, Vec<u8>)>,
    next: u64,
}

/// Memory of a GPU at an address.
pub(crate) struct Allocation {
    pub(crate) name: Name,
    pub(crate) file: File,
    pub(crate) bytes: u64,
    /// How often it was opened, if another process made it.
    pub(crate) opened: Option<u64>,
}

impl Process {
    const fn new() -> Self {
        Self {
            devices: None,
            contexts: BTreeMap::new(),
            calls: BTreeMap::new(),
            lost: BTreeMap::new(),
            allocations: BTreeMap::new(),
            pinned: BTreeMap::new(),
            streams: BTreeSet::new(),
            under_way: None,
            next: 1,
        }
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Whether there is such a GPU; its number.
    pub(crate) fn device(&self, number: i32) -> Result<u32, Code> {
        let devices = self.devices.unwrap_or(0);
        let number = u32::try_from(number).map_err(|_| INVALID_DEVICE)?;
        (number < devices).then_some(number).ok_or(INVALID_DEVICE)
    }

    /// Counts a call to a GPU, which may be lost by it.
    fn touch(&mut self, control: &Control, device: u32) -> Result<(), Code> {
        let calls = self.calls.entry(device).or_default();
        *calls += 1;
        let code = control.code(&format!("lost.{device}"));
        let after = control.number(&format!("after.{device}")).unwrap_or(0);
        if let Some(code) = code.filter(|_| *calls > after) {
            self.lost.entry(device).or_insert(code);
        }
        self.lost.get(&device).map_or(Ok(()), |code| Err(*code))
    }

    /// One more holder of a GPU's context.
    pub(crate) fn retain(&mut self, control: &Control, device: u32) -> Result<usize, Code> {
        self.touch(control, device)?;
        if !self.contexts.contains_key(&device) {
            let bytes = control.number("context_bytes").unwrap_or(0);
            self.reserve(control, device, 0, bytes)?;
        }
        *self.contexts.entry(device).or_default() += 1;
        Ok(context(device))
    }

    /// One holder less.
    pub(crate) fn release(&mut self, control: &Control, device: u32) -> Result<(), Code> {
        let holders = self.contexts.get_mut(&device).ok_or(INVALID_CONTEXT)?;
        *holders -= 1;
        if *holders == 0 {
            self.contexts.remove(&device);
            let _ = fs::remove_file(own(device, 0).path(control.folder()));
        }
        Ok(())
    }

    /// Takes memory of a GPU.
    pub(crate) fn reserve(
        &self,
        control: &Control,
        device: u32,
        number: u64,
        bytes: u64,
    ) -> Result<(Name, File), Code> {
        let used = memory::used(control.folder(), device);
        if bytes > control.memory_bytes().saturating_sub(used) {
            return Err(OUT_OF_MEMORY);
        }
        let name = own(device, number);
        let file = name.allocate(control.folder(), bytes);
        Ok((name, file.map_err(|_| OPERATING_SYSTEM)?))
    }

    /// Gives memory an address.
    pub(crate) fn place(&mut self, device: u32, allocation: Allocation) -> u64 {
        let pages = allocation.bytes.div_ceil(PAGE) + 1;
        let start = FIRST * u64::from(device + 1) + self.next * PAGE;
        self.next += pages;
        self.allocations.insert(start, allocation);
        start
    }

    /// Brings to an end what is under way. What is under way to memory that is gone goes nowhere.
    pub(crate) fn land(&mut self) -> Result<(), Code> {
        let Some((start, bytes)) = self.under_way.take() else {
            return Ok(());
        };
        let Ok((allocation, offset)) = self.at(start, bytes.len() as u64) else {
            return Ok(());
        };
        let written = allocation.file.write_all_at(&bytes, offset);
        written.map_err(|_| OPERATING_SYSTEM)
    }

    /// Where in which allocation so many bytes are.
    pub(crate) fn at(&self, start: u64, bytes: u64) -> Result<(&Allocation, u64), Code> {
        let before = self.allocations.range(..=start).next_back();
        let (base, allocation) = before.ok_or(INVALID_VALUE)?;
        let offset = start - base;
        let end = offset.checked_add(bytes).ok_or(INVALID_VALUE)?;
        let inside = end <= allocation.bytes;
        inside.then_some((allocation, offset)).ok_or(INVALID_VALUE)
    }
}

/// Memory of this process; 0 is what its context takes.
fn own(device: u32, number: u64) -> Name {
    Name {
        device,
        process: std::process::id(),
        number,
    }
}

/// The handle of a GPU's context.
fn context(device: u32) -> usize {
    0x1000 + device as usize
}

/// The context that this thread has, 0 for none.
pub(crate) fn current() -> usize {
    CURRENT.get().map_or(0, context)
}

/// Gives this thread a context, or none.
pub(crate) fn make_current(process: &Process, handle: usize) -> Result<(), Code> {
    let mut devices = process.contexts.keys().copied();
    let device = devices.find(|device| context(*device) == handle);
    if handle != 0 && device.is_none() {
        return Err(INVALID_CONTEXT);
    }
    CURRENT.set(device);
    Ok(())
}

fn lock() -> MutexGuard<'static, Process> {
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn code(outcome: Result<(), Code>) -> Code {
    outcome.err().unwrap_or(SUCCESS)
}

/// A call that the driver answers before it is started.
pub(crate) fn early(
    name: &str,
    call: impl FnOnce(&mut Process, &Control) -> Result<(), Code>,
) -> Code {
    let Some(control) = Control::read() else {
        return NO_DEVICE;
    };
    match control.code(&format!("fail.{name}")) {
        Some(fault) => fault,
        None => code(call(&mut lock(), &control)),
    }
}

/// A call that needs the driver to be started.
pub(crate) fn started(
    name: &str,
    call: impl FnOnce(&mut Process, &Control) -> Result<(), Code>,
) -> Code {
    early(name, |process, control| {
        process.devices.ok_or(NOT_INITIALIZED)?;
        call(process, control)
    })
}

/// A call to the GPU whose context the thread has.
pub(crate) fn on_device(
    name: &str,
    call: impl FnOnce(&mut Process, &Control, u32) -> Result<(), Code>,
) -> Code {
    started(name, |process, control| {
        let device = CURRENT.get().ok_or(INVALID_CONTEXT)?;
        if !process.contexts.contains_key(&device) {
            return Err(INVALID_CONTEXT);
        }
        process.touch(control, device)?;
        call(process, control, device)
    })
}
