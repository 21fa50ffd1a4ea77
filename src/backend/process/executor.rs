//! An executor whose work is done by a worker.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::channel::{Channel, MOST_FILES, is_shortage};
use super::message::{
    Failed, Failure, Numbers, Order, OrderKind, Part, Reply, ReplyKind, Run, number, path,
};
use super::outputs::Outputs;
use super::worker::Worker;
use crate::backend::{Cause, Death, Executor, Input, LoadError, RunError};
use crate::device::{HostMemory, MappedDevice, MappedMemory, Mapping};
use crate::model::Signature;
use crate::tensor::Tensor;

/// Where the next input in the same memory begins: aligned for every element type.
const LINE: usize = 64;
/// The most memory that is kept for inputs that had to be copied.
const MOST_KEPT: usize = 64 << 20;

/// A conversation with a worker.
pub(super) struct Line {
    worker: Arc<Worker>,
    channel: Channel,
    patience: Option<Duration>,
}

impl Line {
    /// With this long for each answer.
    pub(super) fn open(worker: &Arc<Worker>, patience: Option<Duration>) -> Result<Self, Death> {
        let channel = worker
            .open()
            .map_err(|error| ended(worker, &error, patience))?;
        let mut line = Self {
            worker: Arc::clone(worker),
            channel,
            patience: None,
        };
        line.wait_for(patience)?;
        Ok(line)
    }

    fn wait_for(&mut self, patience: Option<Duration>) -> Result<(), Death> {
        self.patience = patience;
        let set = self.channel.set_patience(patience);
        set.map_err(|error| self.ended(&error))
    }

    pub(super) fn say(&mut self, kind: OrderKind, files: &[BorrowedFd<'_>]) -> Result<(), Death> {
        let sent = self.channel.send(&Order { kind: Some(kind) }, files);
        sent.map_err(|error| self.ended(&error))
    }

    pub(super) fn hear(&mut self) -> Result<(ReplyKind, Vec<OwnedFd>), Death> {
        let heard = self.channel.receive::<Reply>();
        let (reply, files) = heard.map_err(|error| self.ended(&error))?;
        Ok((self.kind(reply)?, files))
    }

    /// The same, but for a file that this process cannot take: that is no fault of the worker's, and
    /// nothing is heard.
    fn hear_if_possible(&mut self) -> Result<Option<(ReplyKind, Vec<OwnedFd>)>, Death> {
        match self.channel.receive::<Reply>() {
            Ok((reply, files)) => Ok(Some((self.kind(reply)?, files))),
            Err(error) if is_shortage(&error) => Ok(None),
            Err(error) => Err(self.ended(&error)),
        }
    }

    fn kind(&self, reply: Reply) -> Result<ReplyKind, Death> {
        reply.kind.ok_or_else(|| self.nonsense("an empty reply"))
    }

    pub(super) fn ask(&mut self, kind: OrderKind) -> Result<ReplyKind, Death> {
        self.say(kind, &[])?;
        Ok(self.hear()?.0)
    }

    /// The worker is of no use any more.
    fn ended(&self, error: &io::Error) -> Death {
        ended(&self.worker, error, self.patience)
    }

    /// The worker breaks the rules: whatever it is, it is not what was started.
    pub(super) fn nonsense(&self, what: &str) -> Death {
        self.worker
            .kill(Cause::Crashed, format!("gave {what}, and was killed"));
        self.worker.death()
    }

    /// Its device answers no more, and only another process may find it well.
    fn lost(&self, reason: &str) -> Death {
        let told = format!("lost its device, and was killed: {reason}");
        self.worker.kill(Cause::DeviceLost, told);
        self.worker.death()
    }
}

fn ended(worker: &Worker, error: &io::Error, patience: Option<Duration>) -> Death {
    if error.kind() == io::ErrorKind::WouldBlock {
        let patience = patience.unwrap_or_default().as_millis();
        worker.kill(
            Cause::Hung,
            format!("gave no answer within {patience} ms, and was killed"),
        );
    } else if !is_end(error) {
        worker.kill(Cause::Crashed, format!("broke off: {error}"));
    }
    worker.death()
}

/// Whether there is nobody at the other end.
fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(
        error.kind(),
        BrokenPipe | ConnectionReset | NotConnected | UnexpectedEof
    )
}

/// An executor whose work is done by a worker.
pub(super) struct ProcessExecutor {
    signature: Signature,
    line: Line,
    device: Arc<MappedDevice>,
    /// Memory that the worker has mapped.
    mapped: HashMap<u64, Weak<Mapping>>,
    /// For inputs that lie elsewhere.
    copies: Option<MappedMemory>,
    outputs: Outputs,
    /// Whether the answer to the last batch did not arrive.
    unheard: bool,
}

impl ProcessExecutor {
    /// The executor that `line` is told to make.
    pub(super) fn make(
        mut line: Line,
        order: OrderKind,
        device: Arc<MappedDevice>,
    ) -> Result<Self, LoadError> {
        let specs = match line.ask(order)? {
            ReplyKind::Made(specs) => specs,
            ReplyKind::Failed(failed) => return Err(LoadError::Remote(failed.reason)),
            _ => return Err(line.nonsense("no executor").into()),
        };
        let signature = specs
            .signature()
            .ok_or_else(|| line.nonsense("no signature"))?;
        Ok(Self {
            signature,
            line,
            device,
            mapped: HashMap::new(),
            copies: None,
            outputs: Outputs::default(),
            unheard: false,
        })
    }

    /// Where each input lies for the worker; those that lie elsewhere are copied.
    fn place(&mut self, inputs: &[Input<'_>]) -> Result<Placed, RunError> {
        let mut placed = Placed::default();
        let mut elsewhere = Vec::new();
        for (position, input) in inputs.iter().enumerate() {
            let mut part = Part {
                dtype: number(input.dtype),
                shape: input.shape.to_vec(),
                length: input.data.len() as u64,
                ..Part::default()
            };
            match self.device.place(input.data) {
                Some((mapping, offset)) => placed.at(mapping, offset, &mut part),
                None => elsewhere.push(position),
            }
            placed.parts.push(part);
        }
        if !elsewhere.is_empty() {
            self.copy(inputs, &elsewhere, &mut placed)?;
        }
        Ok(placed)
    }

    fn copy(
        &mut self,
        inputs: &[Input<'_>],
        elsewhere: &[usize],
        placed: &mut Placed,
    ) -> Result<(), RunError> {
        let data = |position: usize| inputs.get(position).map_or(&[][..], |input| input.data);
        let sizes = elsewhere.iter().map(|one| data(*one).len());
        let needed = sizes.map(|size| size.next_multiple_of(LINE)).sum();
        let memory = self.copies(needed)?;
        let mapping = Arc::clone(memory.mapping());
        let mut offset = 0;
        for position in elsewhere {
            let data = data(*position);
            let end = offset + data.len();
            let place = memory.as_mut_slice().get_mut(offset..end);
            if let (Some(place), Some(part)) = (place, placed.parts.get_mut(*position)) {
                place.copy_from_slice(data);
                part.mapping = mapping.id();
                part.offset = offset as u64;
            }
            offset += data.len().next_multiple_of(LINE);
        }
        placed.mappings.push(mapping);
        Ok(())
    }

    fn copies(&mut self, needed: usize) -> Result<&mut MappedMemory, RunError> {
        let enough = |memory: &MappedMemory| memory.as_slice().len() >= needed;
        if !self.copies.as_ref().is_some_and(enough) {
            self.copies = None;
            let bytes = needed.max(4096).next_power_of_two();
            let memory = MappedMemory::zeroed(bytes);
            let failed =
                |error: io::Error| RunError::Failed(format!("no memory to share: {error}"));
            self.copies = Some(memory.map_err(failed)?);
        }
        let lost = || RunError::Failed("memory is missing".to_owned());
        self.copies.as_mut().ok_or_else(lost)
    }

    /// Gives the worker what it has not mapped yet.
    fn announce(&mut self, mappings: &[Arc<Mapping>]) -> Result<(), Death> {
        let mut new: Vec<&Arc<Mapping>> = Vec::new();
        for mapping in mappings {
            if let Entry::Vacant(place) = self.mapped.entry(mapping.id()) {
                place.insert(Arc::downgrade(mapping));
                new.push(mapping);
            }
        }
        for some in new.chunks(MOST_FILES) {
            let numbers = some.iter().map(|mapping| mapping.id()).collect();
            // Nobody takes the files of what inputs lie in: each worker may have to be given them.
            let files = some.iter().filter_map(|mapping| mapping.file());
            let files: Vec<BorrowedFd<'_>> = files.collect();
            self.line.say(OrderKind::Map(Numbers { numbers }), &files)?;
        }
        Ok(())
    }

    /// Forgets memory that is gone.
    fn dropped(&mut self) -> Vec<u64> {
        let mut dropped = Vec::new();
        self.mapped.retain(|number, mapping| {
            let is_there = mapping.strong_count() > 0;
            if !is_there {
                dropped.push(*number);
            }
            is_there
        });
        dropped
    }

    fn trouble(&self, failed: Failed) -> RunError {
        match failed.kind() {
            Failure::Failed => RunError::Failed(failed.reason),
            Failure::OutOfMemory => RunError::OutOfMemory(failed.reason),
            Failure::DeviceLost => RunError::Died(self.line.lost(&failed.reason)),
        }
    }
}

fn no_descriptor() -> RunError {
    RunError::Failed(
        "the server has no file descriptor left for the outputs: raise its limit of open files"
            .to_owned(),
    )
}

/// A batch's inputs, and what they lie in.
#[derive(Default)]
struct Placed {
    parts: Vec<Part>,
    mappings: Vec<Arc<Mapping>>,
}

impl Placed {
    fn at(&mut self, mapping: Arc<Mapping>, offset: usize, part: &mut Part) {
        part.mapping = mapping.id();
        part.offset = offset as u64;
        self.mappings.push(mapping);
    }
}

impl Executor for ProcessExecutor {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Tensor>, RunError> {
        let placed = self.place(inputs)?;
        self.announce(&placed.mappings)?;
        let run = Run {
            inputs: placed.parts,
            dropped: self.dropped(),
            returned: self.outputs.returned(),
            unheard: self.unheard,
        };
        self.line.say(OrderKind::Run(run), &[])?;
        let heard = self.line.hear_if_possible()?;
        self.unheard = heard.is_none();
        if self
            .copies
            .as_ref()
            .is_some_and(|copies| copies.as_slice().len() > MOST_KEPT)
        {
            self.copies = None;
        }
        let (reply, files) = heard.ok_or_else(no_descriptor)?;
        match reply {
            ReplyKind::Ran(ran) => {
                let outputs = self.outputs.take(ran, files);
                outputs.map_err(|error| self.line.nonsense(&error.to_string()).into())
            }
            ReplyKind::Failed(failed) => Err(self.trouble(failed)),
            _ => Err(self.line.nonsense("no outputs").into()),
        }
    }

    fn end_profile(&mut self) -> Result<PathBuf, String> {
        match self.line.ask(OrderKind::EndProfile(true)) {
            Ok(ReplyKind::Profiled(file)) => Ok(path(&file)),
            Ok(ReplyKind::Failed(failed)) => Err(failed.reason),
            Ok(_) => Err(self.line.nonsense("no profile").reason),
            Err(death) => Err(death.reason),
        }
    }

    fn waits(&self) -> bool {
        true
    }

    fn death(&self) -> Option<Death> {
        self.line.worker.ended()
    }

    fn bound(&mut self, longest: Option<Duration>) {
        // If that fails the next run does, too.
        let _ = self.line.wait_for(longest);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::process::Command;
    use std::thread;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    use super::super::message::Ran;
    use super::super::shelf::Shelf;
    use super::super::worker::Program;
    use super::*;
    use crate::device::SimulatedDevices;
    use crate::tensor::{Dtype, Shape};

    const ALONE: &str = "JITNEY_TEST_ALONE";

    fn tensor(value: u8) -> Tensor {
        Tensor {
            dtype: Dtype::Uint8,
            shape: Shape::new(&[20_001]),
            data: vec![value; 20_001].into(),
        }
    }

    fn next_run(channel: &mut Channel) -> Option<Run> {
        match channel.receive::<Order>().ok()?.0.kind {
            Some(OrderKind::Run(run)) => Some(run),
            _ => None,
        }
    }

    fn answer(channel: &mut Channel, ran: Ran, file: Option<&OwnedFd>) {
        let files: Vec<BorrowedFd<'_>> = file.map(AsFd::as_fd).into_iter().collect();
        let kind = Some(ReplyKind::Ran(ran));
        channel.send(&Reply { kind }, &files).unwrap();
    }

    /// What a worker does; while it answers the first batch this process may have no more files.
    fn work(mut channel: Channel) {
        let mut shelf = Shelf::default();
        let mut all = Vec::new();
        let mut value = 0;
        while let Some(run) = next_run(&mut channel) {
            all.clear();
            assert_eq!(run.unheard, value == 1);
            if run.unheard {
                shelf.take_back_last();
            }
            shelf.take_back(&run.returned);
            value += 1;
            let (ran, file) = shelf.put(&[tensor(value)]).unwrap();
            if value == 1 {
                all.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
            }
            answer(&mut channel, ran, file.as_ref());
            all.extend(file.map(File::from));
        }
    }

    fn executor() -> ProcessExecutor {
        let (channel, theirs) = Channel::pair().unwrap();
        thread::spawn(move || work(Channel::over(theirs)));
        let program = Program {
            file: "/bin/sleep".into(),
            arguments: vec!["600".into()],
        };
        let line = Line {
            worker: Worker::start(&program).unwrap(),
            channel,
            patience: None,
        };
        ProcessExecutor {
            signature: Signature {
                inputs: Vec::new(),
                outputs: Vec::new(),
            },
            line,
            device: Arc::new(MappedDevice::new(SimulatedDevices::default().get(0))),
            mapped: HashMap::new(),
            copies: None,
            outputs: Outputs::default(),
            unheard: false,
        }
    }

    /// In a process of its own, for others need files meanwhile.
    #[test]
    fn an_answer_that_there_is_no_descriptor_for_fails_alone() {
        if std::env::var_os(ALONE).is_none() {
            let test = "backend::process::executor::tests::an_answer_that_there_is_no_descriptor_for_fails_alone";
            let again = Command::new(std::env::current_exe().unwrap())
                .args([test, "--exact", "--nocapture"])
                .env(ALONE, "1")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&again.stdout);
            assert!(said.contains("1 passed"), "{again:?}");
            return;
        }
        let maximum = getrlimit(Resource::Nofile).maximum;
        let few = Rlimit {
            current: Some(128),
            maximum,
        };
        setrlimit(Resource::Nofile, few).unwrap();
        let mut executor = executor();
        let RunError::Failed(reason) = executor.run(&[]).unwrap_err() else {
            panic!("the worker did nothing wrong");
        };
        assert!(reason.contains("no file descriptor left"), "{reason}");
        assert_eq!(executor.death(), None);
        // More answers than there may be files are there at once.
        let answers: Vec<_> = (2..=200)
            .map(|value| (value, executor.run(&[]).unwrap()))
            .collect();
        for (value, answer) in answers {
            assert_eq!(answer, [tensor(value)]);
        }
    }
}
