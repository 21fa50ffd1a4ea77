//! A worker from within: one version, and a thread for each of its executors.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::process::{Signal, getpid, kill_process, set_parent_process_death_signal};

use super::channel::Channel;
use super::message::{
    Failed, Failure, Load, Numbers, Order, OrderKind, Part, Profile, Ran, Reply, ReplyKind, Run,
    bytes, dtype, path,
};
use super::shelf::{Room, Shelf};
use crate::backend::{
    Artifact, Backend, Executor, Input, Outline, Place, Placement, RunError, Weights,
};
use crate::device::{DeviceId, MappedBytes, SharedDevice};
use crate::model::ModelPolicy;

/// What a worker has to load models with.
pub trait Equipment: Send + Sync + 'static {
    /// What a `model.toml` means.
    fn read(&self, source: &str) -> Result<ModelPolicy, String>;

    /// What runs such a model.
    fn backend(&self, policy: &ModelPolicy) -> Result<Arc<dyn Backend>, String>;

    /// A device.
    fn device(&self, id: DeviceId) -> Result<SharedDevice, String>;
}

/// Serves whoever has the other end of `lifeline` for as long as he has it; then the process ends, at
/// once, whatever its threads do.
pub fn serve(lifeline: OwnedFd, equipment: impl Equipment) {
    // A server that is killed takes its workers with it, those that are stopped among them.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // Where memory is short the kernel is to take a worker rather than the server.
    let _ = std::fs::write("/proc/self/oom_score_adj", "500");
    // A thread that panics leaves its executor in no known state.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "worker gives up");
        process::abort();
    }));
    let version = Arc::new(Version {
        equipment: Box::new(equipment),
        weights: Mutex::new(None),
    });
    let mut lifeline = Channel::over(lifeline);
    while let Ok((_, files)) = lifeline.receive::<Order>() {
        for socket in files {
            let version = Arc::clone(&version);
            let converse = move || Conversation::new(&version, socket).run();
            let started = thread::Builder::new()
                .name("executor".to_owned())
                .spawn(converse);
            if let Err(error) = started {
                // The socket is closed, which tells the server.
                tracing::error!(%error, "worker has no thread");
            }
        }
    }
    end();
}

/// Ends the process before any code of a native library can keep it.
fn end() -> ! {
    let _ = kill_process(getpid(), Signal::KILL);
    process::abort()
}

/// The version that all conversations are about.
struct Version {
    equipment: Box<dyn Equipment>,
    weights: Mutex<Option<Arc<dyn Weights>>>,
}

impl Version {
    fn load(&self, load: &Load) -> Result<(), String> {
        let (backend, artifact, placement) = self.prepare(load)?;
        let weights = backend.load(&artifact, &placement);
        let weights = weights.map_err(|error| error.to_string())?;
        *self.weights.lock().unwrap_or_else(PoisonError::into_inner) = Some(weights);
        Ok(())
    }

    fn executor(&self) -> Result<Box<dyn Executor>, String> {
        let weights = self
            .weights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let weights = weights.ok_or("nothing is loaded")?;
        weights.executor().map_err(|error| error.to_string())
    }

    fn profiled(&self, profile: &Profile) -> Result<Box<dyn Executor>, String> {
        let load = profile.load.as_ref().ok_or("no version is named")?;
        let (backend, artifact, placement) = self.prepare(load)?;
        let executor = backend.profiled(&artifact, &placement, &path(&profile.prefix));
        executor.map_err(|error| error.to_string())
    }

    fn prepare(&self, load: &Load) -> Result<(Arc<dyn Backend>, Artifact, Placement), String> {
        let policy = self.equipment.read(&load.policy)?;
        let backend = self.equipment.backend(&policy)?;
        let device = DeviceId::from(load.device.unwrap_or_default());
        let threads = load
            .threads
            .and_then(|threads| usize::try_from(threads).ok());
        let artifact = Artifact {
            id: load.id(),
            folder: path(&load.folder),
            file: path(&load.file),
            policy,
            // The server has it.
            lease: None,
        };
        let device = self.equipment.device(device)?;
        Ok((backend, artifact, Placement { device, threads }))
    }
}

/// One executor and the thread of the server that uses it.
struct Conversation<'a> {
    version: &'a Version,
    channel: Channel,
    executor: Option<Box<dyn Executor>>,
    /// Memory that the server writes inputs into, by its numbers.
    inputs: HashMap<u64, MappedBytes>,
    shelf: Shelf,
}

impl<'a> Conversation<'a> {
    fn new(version: &'a Version, socket: OwnedFd) -> Self {
        Self {
            version,
            channel: Channel::over(socket),
            executor: None,
            inputs: HashMap::new(),
            shelf: Shelf::default(),
        }
    }

    /// Until the server closes its end, or breaks the rules.
    fn run(mut self) {
        while let Ok((order, files)) = self.channel.receive::<Order>() {
            let done = match order.kind {
                Some(OrderKind::Map(numbers)) => self.map(&numbers, files),
                Some(OrderKind::Run(run)) => self.batch(&run),
                Some(kind) => {
                    let reply = self.reply(kind).unwrap_or_else(failed);
                    send(&mut self.channel, reply, None)
                }
                None => Err(io::ErrorKind::InvalidData.into()),
            };
            if let Err(error) = done {
                tracing::error!(%error, "worker ends a conversation");
                return;
            }
        }
    }

    fn reply(&mut self, kind: OrderKind) -> Result<ReplyKind, String> {
        match kind {
            OrderKind::Load(load) => self.version.load(&load).map(|()| ReplyKind::Loaded(true)),
            OrderKind::Make(_) => self.version.executor().map(|executor| self.made(executor)),
            OrderKind::Profile(profile) => {
                let executor = self.version.profiled(&profile)?;
                Ok(self.made(executor))
            }
            OrderKind::EndProfile(_) => {
                let executor = self.executor.as_mut().ok_or("there is no executor")?;
                Ok(ReplyKind::Profiled(bytes(&executor.end_profile()?)))
            }
            _ => Err("this is no order for here".to_owned()),
        }
    }

    fn made(&mut self, executor: Box<dyn Executor>) -> ReplyKind {
        let specs = executor.signature().into();
        self.executor = Some(executor);
        ReplyKind::Made(specs)
    }

    fn map(&mut self, numbers: &Numbers, files: Vec<OwnedFd>) -> io::Result<()> {
        for (number, file) in numbers.numbers.iter().zip(files) {
            self.inputs.insert(*number, MappedBytes::open(file)?);
        }
        Ok(())
    }

    fn batch(&mut self, run: &Run) -> io::Result<()> {
        for number in &run.dropped {
            self.inputs.remove(number);
        }
        if run.unheard {
            self.shelf.take_back_last();
        }
        self.shelf.take_back(&run.returned);
        let inputs = run.inputs.iter().map(|part| input(part, &self.inputs));
        let inputs = inputs.collect::<Option<Vec<Input<'_>>>>();
        let (Some(inputs), Some(executor)) = (inputs, &mut self.executor) else {
            let reply = failed("inputs that are nowhere, or no executor".to_owned());
            return send(&mut self.channel, reply, None);
        };
        match run_onto(&mut self.shelf, executor.as_mut(), &inputs) {
            Ok(done) => {
                let (ran, file) = done?;
                send(&mut self.channel, ReplyKind::Ran(ran), file)
            }
            Err(error) => send(&mut self.channel, trouble(error), None),
        }
    }
}

/// What the server is told of a batch, and the file that goes with it.
type Told = io::Result<(Ran, Option<OwnedFd>)>;

/// Runs a batch whose outputs go onto the shelf: straight, where they are foreseen, or by a copy.
fn run_onto(
    shelf: &mut Shelf,
    executor: &mut dyn Executor,
    inputs: &[Input<'_>],
) -> Result<Told, RunError> {
    let Some((outlines, mut room)) = room(shelf, executor, inputs) else {
        return Ok(shelf.put(&executor.run(inputs)?));
    };
    let places = room.places().into_iter().zip(&outlines);
    let mut places: Vec<Place<'_>> = places
        .map(|(data, outline)| Place { outline, data })
        .collect();
    match executor.run_into(inputs, &mut places) {
        Ok(None) => Ok(Ok(shelf.hand_out(room, &outlines))),
        Ok(Some(outputs)) => {
            shelf.refuse(room);
            Ok(shelf.put(&outputs))
        }
        Err(error) => {
            shelf.refuse(room);
            Err(error)
        }
    }
}

/// What the outputs will look like, and room for them, if both are there before the run.
fn room(
    shelf: &mut Shelf,
    executor: &dyn Executor,
    inputs: &[Input<'_>],
) -> Option<(Vec<Outline>, Room)> {
    let outlines = executor.foresee(inputs)?;
    let sizes = outlines.iter().map(Outline::bytes).collect::<Option<_>>()?;
    // What a model says of itself may be more than there is. Then it is seen what comes.
    let room = shelf.room(sizes).ok()??;
    Some((outlines, room))
}

fn input<'a>(part: &'a Part, inputs: &'a HashMap<u64, MappedBytes>) -> Option<Input<'a>> {
    let memory = inputs.get(&part.mapping)?;
    Some(Input {
        dtype: dtype(part.dtype)?,
        shape: &part.shape,
        data: memory.as_ref().get(part.range()?)?,
    })
}

fn send(channel: &mut Channel, kind: ReplyKind, file: Option<OwnedFd>) -> io::Result<()> {
    let reply = Reply { kind: Some(kind) };
    let files: Vec<BorrowedFd<'_>> = file.iter().map(AsFd::as_fd).collect();
    channel.send(&reply, &files)
}

fn failed(reason: String) -> ReplyKind {
    let kind = Failure::Failed.into();
    ReplyKind::Failed(Failed { kind, reason })
}

fn trouble(error: RunError) -> ReplyKind {
    let (kind, reason) = match error {
        RunError::Failed(reason) => (Failure::Failed, reason),
        RunError::OutOfMemory(reason) => (Failure::OutOfMemory, reason),
        RunError::DeviceLost(reason) => (Failure::DeviceLost, reason),
        // Workers have none of their own.
        RunError::Died(death) => (Failure::DeviceLost, death.reason),
    };
    let kind = kind.into();
    ReplyKind::Failed(Failed { kind, reason })
}

#[cfg(test)]
mod tests {
    use super::super::outputs::Outputs;
    use super::*;
    use crate::model::Signature;
    use crate::tensor::{Dtype, Shape, Tensor};

    /// Foresees ones of this size, and may be wrong.
    struct Foresighted {
        size: i64,
        wrong: bool,
    }

    impl Executor for Foresighted {
        fn signature(&self) -> &Signature {
            panic!("nobody asks")
        }

        fn run(&mut self, _: &[Input<'_>]) -> Result<Vec<Tensor>, RunError> {
            panic!("what is foreseen is not run like this")
        }

        fn foresee(&self, _: &[Input<'_>]) -> Option<Vec<Outline>> {
            Some(vec![Outline {
                dtype: Dtype::Uint8,
                shape: Shape::new(&[self.size]),
            }])
        }

        fn run_into(
            &mut self,
            _: &[Input<'_>],
            places: &mut [Place<'_>],
        ) -> Result<Option<Vec<Tensor>>, RunError> {
            places[0].data.fill(1);
            Ok(self.wrong.then(|| vec![twos()]))
        }
    }

    fn twos() -> Tensor {
        Tensor {
            dtype: Dtype::Uint8,
            shape: Shape::new(&[20_000]),
            data: vec![2; 20_000].into(),
        }
    }

    #[test]
    fn what_is_foreseen_is_put_on_the_shelf_by_whoever_runs() {
        let (mut shelf, mut outputs) = (Shelf::default(), Outputs::default());
        let mut pass = |wrong| {
            shelf.take_back(&outputs.returned());
            let mut executor = Foresighted {
                size: 30_000,
                wrong,
            };
            let told = run_onto(&mut shelf, &mut executor, &[]);
            let (ran, file) = told.unwrap().unwrap();
            outputs.take(ran, file.into_iter().collect()).unwrap()
        };
        assert_eq!(pass(false)[0].data, vec![1; 30_000]);
        assert_eq!(pass(true), [twos()]);
        assert_eq!(pass(false)[0].data, vec![1; 30_000]);
    }

    #[test]
    fn more_than_there_is_has_no_room() {
        let executor = Foresighted {
            size: i64::MAX,
            wrong: false,
        };
        assert!(room(&mut Shelf::default(), &executor, &[]).is_none());
    }
}
