//! Small worlds made from seeds: lanes, instances and turns as the server runs them, in virtual time.
//!
//! Executors here fail, run out of memory, lose their device and choke on poison; clients go away.
//! Whatever comes, every request is answered once, with its own answer or with a reason that holds.
//! `JITNEY_SEED=7 cargo test worlds` plays one of them.

mod steps;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::backend::{Cause, Death, Executor, Input, LoadError, RunError};
use crate::clock::Sleep;
use crate::device::{Inventory, SharedDevice, SimulatedDevices};
use crate::model::{
    DeviceChoice, Dimension, InstanceGroup, NeededResource, OfferedResource, Signature, TensorSpec,
};
use crate::scheduler::ShapeClass;
use crate::serving::breaker::BreakerPolicy;
use crate::serving::budget::Budget;
use crate::serving::instance::{Broken, NotMended};
use crate::serving::limiter::Limiter;
use crate::serving::placing::Placer;
use crate::serving::stacking::Stacking;
use crate::serving::ticket::Outputs;
use crate::serving::turns::AHEAD;
use crate::status::Code;
use crate::tensor::{Dtype, Shape};

const SEEDS: u64 = 2_000;
const POISON: f32 = -1.0;
/// Rows beyond which a batch does not fit into memory, where it may not.
const ROOM: i64 = 5;

/// A stream of numbers that a seed decides (xorshift64*, Vigna 2016).
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    fn one_in(&mut self, chances: u64) -> bool {
        chances > 0 && self.below(chances) == 0
    }
}

#[derive(Default)]
struct VirtualClock(AtomicU64);

impl Clock for VirtualClock {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.0.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, _moment: Moment) -> Sleep {
        Box::pin(std::future::pending())
    }
}

/// What goes wrong in a world, one time in so many; 0 for never.
#[derive(Clone, Copy)]
struct Faults {
    fails: u64,
    loses: u64,
    poison: u64,
    no_room: bool,
    /// Of the executor's worker.
    dies: u64,
}

/// Gives back what it is given, or fails.
struct Echo {
    signature: Signature,
    faults: Faults,
    random: Random,
}

impl Executor for Echo {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Tensor>, RunError> {
        let input = &inputs[0];
        if input
            .data
            .as_chunks::<4>()
            .0
            .contains(&POISON.to_le_bytes())
        {
            // Without the hook that prints every panic.
            resume_unwind(Box::new("poison"));
        }
        if self.random.one_in(self.faults.loses) {
            return Err(RunError::DeviceLost("lost".to_owned()));
        }
        if self.random.one_in(self.faults.dies) {
            return Err(RunError::Died(Death {
                worker: self.random.below(1 << 30),
                cause: Cause::Crashed,
                reason: "died".to_owned(),
            }));
        }
        if self.random.one_in(self.faults.fails) {
            return Err(RunError::Failed("failed".to_owned()));
        }
        if self.faults.no_room && input.shape[0] > ROOM {
            return Err(RunError::OutOfMemory("full".to_owned()));
        }
        Ok(vec![Tensor {
            dtype: input.dtype,
            shape: Shape::new(input.shape),
            data: bytes::Bytes::copy_from_slice(input.data),
        }])
    }
}

fn signature() -> Signature {
    let tensor = |name: &str| TensorSpec {
        name: name.to_owned(),
        dtype: Dtype::Fp32,
        dimensions: vec![Dimension::varying(""), Dimension::fixed(1)],
    };
    Signature {
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
    }
}

enum Event {
    Arrives {
        lane: usize,
        request: usize,
    },
    Leaves {
        request: usize,
    },
    Ends {
        lane: usize,
        instance: Box<Instance>,
    },
    Mends {
        lane: usize,
        instance: Box<Instance>,
        broken: Broken,
    },
    Wakes {
        lane: usize,
    },
}

struct Request {
    numbers: Vec<f32>,
    deadline: Option<Moment>,
    seat: Option<Seat>,
    refused: bool,
    left: bool,
}

struct World {
    clock: Arc<VirtualClock>,
    lanes: Vec<Arc<Lane>>,
    /// Threads of each lane that run no batch and mend nothing.
    free: Vec<usize>,
    limiter: Arc<Limiter>,
    requests: Vec<Request>,
    /// By time, then by number, so that the order is the seed's.
    times: BinaryHeap<Reverse<(Moment, usize)>>,
    events: Vec<Option<Event>>,
    random: Random,
    faults: Faults,
    mended: u64,
}

#[test]
fn worlds_answer_every_request_once() {
    let chosen = std::env::var("JITNEY_SEED").ok();
    let chosen: Option<u64> = chosen.map(|seed| seed.parse().unwrap());
    let seeds = chosen.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| World::new(seed).play())) {
            eprintln!("seed {seed} fails; JITNEY_SEED={seed} cargo test worlds plays it again");
            resume_unwind(panic);
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut rarely = |chances: u64| match random.below(2) {
            0 => 0,
            _ => chances,
        };
        let faults = Faults {
            fails: rarely(20),
            loses: rarely(15),
            poison: rarely(10),
            no_room: rarely(1) == 1,
            dies: rarely(12),
        };
        let clock = Arc::new(VirtualClock::default());
        let limiter = limiter(&mut random);
        let lanes = lanes(&mut random, faults, &clock, &limiter);
        let mut world = Self {
            free: lanes.iter().map(|lane| lane.lock().idle.len()).collect(),
            lanes,
            limiter,
            clock,
            requests: Vec::new(),
            times: BinaryHeap::new(),
            events: Vec::new(),
            random,
            faults,
            mended: 0,
        };
        world.invent_requests();
        world
    }

    fn invent_requests(&mut self) {
        let mut now = Moment::default();
        for request in 0..self.random.below(120) as usize {
            now = now + Duration::from_micros(self.random.below(3_000));
            let rows = 1 + self.random.below(4) as usize;
            let poisonous = self.random.one_in(self.faults.poison);
            let number = |row: usize| match poisonous && row == 0 {
                true => POISON,
                false => (request * 8 + row) as f32,
            };
            let patience = Duration::from_micros(500 + self.random.below(40_000));
            self.requests.push(Request {
                numbers: (0..rows).map(number).collect(),
                deadline: self.random.one_in(3).then_some(now + patience),
                seat: None,
                refused: false,
                left: false,
            });
            let lane = self.random.below(self.lanes.len() as u64) as usize;
            self.at(now, Event::Arrives { lane, request });
            if self.random.one_in(10) {
                self.at(now + patience, Event::Leaves { request });
            }
        }
    }

    fn at(&mut self, moment: Moment, event: Event) {
        self.times.push(Reverse((moment, self.events.len())));
        self.events.push(Some(event));
    }

    fn play(mut self) {
        while let Some(Reverse((moment, number))) = self.times.pop() {
            self.clock.0.store(moment.as_nanos(), Ordering::Relaxed);
            let event = self.events[number].take();
            self.happens(moment, event.unwrap());
            while let Some(lane) = self.awake() {
                self.run_lane(lane, moment);
                self.limiter.check();
            }
        }
        self.limiter.check_idle();
        for lane in &self.lanes {
            assert_eq!(lane.queued(), 0, "left waiting");
            let core = lane.lock();
            assert!(core.jobs.iter().all(Option::is_none), "a job was left");
            assert_eq!(core.alive(), core.idle.len(), "left alone");
        }
        for request in 0..self.requests.len() {
            self.check(request);
        }
    }

    /// A lane of which a thread is not parked: only those have anything done, so that whoever is not
    /// woken is seen to be left waiting.
    fn awake(&self) -> Option<usize> {
        let lanes = self.lanes.iter().zip(&self.free);
        let mut awake = lanes.map(|(lane, free)| lane.lock().parked < *free);
        awake.position(|awake| awake)
    }

    fn happens(&mut self, now: Moment, event: Event) {
        match event {
            Event::Arrives { lane, request } => self.arrives(now, lane, request),
            Event::Leaves { request } => {
                self.requests[request].left = true;
                let seat = self.requests[request].seat.take();
                drop(seat);
            }
            Event::Ends { lane, mut instance } => {
                self.free[lane] += 1;
                let health = instance.serve();
                if let Some((_, took)) = &mut instance.took {
                    *took = Duration::from_micros(1_000);
                }
                match health {
                    Ok(()) => drop(self.lanes[lane].give_back(instance)),
                    Err(broken) if self.lanes[lane].mend_at_once(&mut instance, &broken) => {
                        self.mended += 1;
                        drop(self.lanes[lane].give_back(instance));
                    }
                    Err(broken) => {
                        self.free[lane] -= 1;
                        self.lanes[lane].executor_down(&mut instance, &broken);
                        let pause = Duration::from_micros(1 + self.random.below(20_000));
                        let event = Event::Mends {
                            lane,
                            instance,
                            broken,
                        };
                        self.at(now + pause, event);
                    }
                }
            }
            Event::Mends {
                lane,
                mut instance,
                broken,
            } => {
                if let Some(pause) = self.stays_away(now, lane, &instance, &broken) {
                    let event = Event::Mends {
                        lane,
                        instance,
                        broken,
                    };
                    return self.at(now + pause, event);
                }
                instance.mend(&broken).unwrap();
                self.free[lane] += 1;
                self.mended += 1;
                self.lanes[lane].executor_up(instance.berth.group, &broken);
                drop(self.lanes[lane].give_back(instance));
            }
            Event::Wakes { lane } => self.lanes[lane].lock().parked = 0,
        }
    }

    /// For how long yet an instance is not mended: its version rests, or its new worker does not start.
    fn stays_away(
        &mut self,
        now: Moment,
        lane: usize,
        instance: &Instance,
        broken: &Broken,
    ) -> Option<Duration> {
        broken.death.as_ref()?;
        let pause = self.lanes[lane].breaker.pause(now);
        if !pause.is_zero() {
            return Some(pause);
        }
        self.random.one_in(3).then(|| {
            let failed = NotMended {
                reason: "gone".to_owned(),
                death: None,
            };
            self.lanes[lane].not_back(instance, broken, &failed);
            Duration::from_millis(1)
        })
    }

    fn arrives(&mut self, now: Moment, lane: usize, number: usize) {
        let request = &mut self.requests[number];
        let data: Vec<u8> = request
            .numbers
            .iter()
            .flat_map(|one| one.to_le_bytes())
            .collect();
        let mut inputs = vec![Tensor {
            dtype: Dtype::Fp32,
            shape: Shape::new(&[request.numbers.len() as i64, 1]),
            data: data.into(),
        }];
        let item = Item {
            rows: request.numbers.len(),
            length: 1,
            class: ShapeClass(number as u64 % 2),
            deadline: request.deadline,
            level: number as u32 % 3,
        };
        match self.lanes[lane].submit(now, item, None, &mut inputs) {
            Ok(seat) => request.seat = Some(seat),
            Err(_) => request.refused = true,
        }
    }

    /// Every batch leaves that may, as it does when threads are free to ask; then they park.
    fn run_lane(&mut self, lane: usize, now: Moment) {
        loop {
            let shared = Arc::clone(&self.lanes[lane]);
            let mut core = shared.lock();
            let decision = core.decide(now);
            let others = core.others.take();
            if others.is_none() && !matches!(decision, Decision::Do(_)) {
                core.parked = self.free[lane];
            }
            drop(core);
            if let Some(limiter) = others {
                limiter.wake();
                if !matches!(decision, Decision::Do(_)) {
                    continue;
                }
            }
            match decision {
                Decision::Do(Next::Run(instance)) => {
                    self.free[lane] -= 1;
                    let takes = Duration::from_micros(100 + self.random.below(5_000));
                    self.at(now + takes, Event::Ends { lane, instance });
                }
                Decision::Do(Next::Mend(..) | Next::End(_)) => panic!("nobody drives or closes it"),
                Decision::Wait => return,
                Decision::WaitUntil(moment) => return self.at(moment, Event::Wakes { lane }),
                Decision::Hold => return self.at(now + AHEAD, Event::Wakes { lane }),
            }
        }
    }

    /// The answer is the request's own, or the reason is one that there was.
    fn check(&mut self, number: usize) {
        let request = &mut self.requests[number];
        if request.left || request.refused {
            return;
        }
        let mut seat = request.seat.take().unwrap();
        let answer = seat.receiver.try_recv().expect("an answer");
        seat.answered = true;
        let poisonous = request.numbers.contains(&POISON);
        match answer {
            Ok(Outputs { tensors, .. }) => {
                let numbers: Vec<u8> = request
                    .numbers
                    .iter()
                    .flat_map(|one| one.to_le_bytes())
                    .collect();
                assert_eq!(tensors[0].data, numbers);
                assert!(!poisonous, "poison has an answer");
            }
            Err(status) => match status.code {
                Code::DeadlineExceeded => assert!(request.deadline.is_some()),
                // The inputs' own fault, or that of a run that failed with nobody else in it.
                Code::Internal => assert!(
                    poisonous || self.faults.fails > 0 || self.faults.dies > 0,
                    "{status:?}"
                ),
                // An executor broke under it twice, or none was left.
                Code::Unavailable => assert!(self.mended > 0, "{status:?}"),
                _ => panic!("{status:?}"),
            },
        }
    }
}

/// Up to three resources, of which one to three copies are there.
fn limiter(random: &mut Random) -> Arc<Limiter> {
    let offered = (0..random.below(4)).map(|name| OfferedResource {
        name: name.to_string(),
        count: 1 + random.below(3) as u32,
        device: None,
    });
    Limiter::new(offered.collect())
}

/// What instances of a lane need, at times; never more than there is.
fn needs(random: &mut Random) -> InstanceGroup {
    let names = random.below(3);
    InstanceGroup {
        resources: (0..names)
            .map(|name| NeededResource {
                name: name.to_string(),
                count: 1 + random.below(3) as u32,
                global: random.one_in(2),
            })
            .collect(),
        priority: 1 + random.below(3) as u32,
        ..InstanceGroup::default()
    }
}

/// One lane or up to three, with up to three instances each on up to two devices that they share.
fn lanes(
    random: &mut Random,
    faults: Faults,
    clock: &Arc<VirtualClock>,
    limiter: &Arc<Limiter>,
) -> Vec<Arc<Lane>> {
    let devices = SimulatedDevices::default();
    let placer = Placer::new(Arc::new(Inventory::detect()), DeviceChoice::Cpu);
    let claim = Arc::new(Budget::new(None).enter().settle().unwrap());
    let count = 1 + random.below(3);
    let lanes = (0..count).map(|_| {
        let shared: Vec<SharedDevice> = (0..=random.below(3))
            .map(|_| devices.get(random.below(2) as u32) as SharedDevice)
            .collect();
        let weight = 1 + random.below(3) as u32;
        let berths = placer.berths(shared.iter(), weight, &claim);
        let instances = berths.into_iter().map(|mut berth| {
            // What is refused is run without.
            let stake = limiter.join(berth.device.id(), &needs(random));
            berth.stake = stake.unwrap_or_default();
            let executor = move |seed: u64| -> Box<dyn Executor> {
                Box::new(Echo {
                    signature: signature(),
                    faults,
                    random: Random::new(seed),
                })
            };
            let mut seed = random.below(1 << 30);
            let first = executor(seed);
            let remake = move |_lost| -> Result<_, LoadError> {
                seed += 1;
                Ok(executor(seed))
            };
            let stacking = Stacking {
                batched: true,
                ..Stacking::default()
            };
            Instance::new(
                "m".to_owned(),
                berth,
                first,
                Box::new(remake),
                Arc::new(stacking),
                Arc::default(),
                Arc::clone(clock) as _,
            )
        });
        let instances = instances.collect();
        let policy = Policy {
            max_batch_size: 8,
            max_queue_size: 100,
            ..Policy::default()
        };
        Lane::new(
            policy,
            instances,
            Arc::clone(clock) as _,
            Changes::default(),
            Breaker::new(BreakerPolicy {
                deaths: 2 + random.below(3) as usize,
                window: Duration::from_millis(20),
                rest: Duration::from_millis(random.below(20)),
            }),
        )
    });
    lanes.collect()
}
