//! Lanes step by step: what becomes of waiting requests when executors go and lanes close.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::task::{Context, Waker};

use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::serving::executor;
use crate::serving::profile::{Lender, Loan};
use crate::status::Status;

/// What an executor does with its batch of so many rows.
type Act = Box<dyn FnMut(i64) -> Result<(), RunError> + Send>;

/// Gives back what it is given, if its act lets it.
struct Acts {
    signature: Signature,
    act: Act,
}

impl Executor for Acts {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Tensor>, RunError> {
        (self.act)(inputs[0].shape[0])?;
        Ok(vec![Tensor {
            dtype: inputs[0].dtype,
            shape: Shape::new(inputs[0].shape),
            data: bytes::Bytes::copy_from_slice(inputs[0].data),
        }])
    }
}

fn acts(act: impl FnMut(i64) -> Result<(), RunError> + Send + 'static) -> Box<dyn Executor> {
    Box::new(Acts {
        signature: signature(),
        act: Box::new(act),
    })
}

/// Fails as these say, one run after the other; then it is well.
fn failing(errors: impl IntoIterator<Item = RunError>) -> Box<dyn Executor> {
    let mut errors: VecDeque<RunError> = errors.into_iter().collect();
    acts(move |_| errors.pop_front().map_or(Ok(()), Err))
}

fn lost() -> RunError {
    RunError::DeviceLost("lost".to_owned())
}

fn broken() -> Broken {
    Broken {
        status: Status::unavailable("lost"),
        panicked: false,
        death: None,
    }
}

fn death(worker: u64) -> Death {
    Death {
        worker,
        cause: Cause::Crashed,
        reason: "died".to_owned(),
    }
}

/// A second later at every look.
#[derive(Default)]
struct Rushing(AtomicU64);

impl Clock for Rushing {
    fn now(&self) -> Moment {
        let seconds = self.0.fetch_add(1, Ordering::Relaxed);
        Moment::ORIGIN + Duration::from_secs(seconds)
    }

    fn sleep_until(&self, _moment: Moment) -> Sleep {
        Box::pin(std::future::pending())
    }
}

/// A lane of instances on a device that is not the processor, and with somebody who looks after them.
fn lane(
    executors: Vec<Box<dyn Executor>>,
    limited: Option<(&Arc<Limiter>, u32)>,
    clock: Arc<dyn Clock>,
    mends: bool,
) -> Arc<Lane> {
    let device = SimulatedDevices::default().get(0) as SharedDevice;
    let longest = Some(Duration::from_mins(1));
    lane_on(device, longest, executors, limited, clock, mends)
}

/// A lane of instances on one device that need this of what is limited. They are mended if `mends`.
fn lane_on(
    device: SharedDevice,
    longest: Option<Duration>,
    executors: Vec<Box<dyn Executor>>,
    limited: Option<(&Arc<Limiter>, u32)>,
    clock: Arc<dyn Clock>,
    mends: bool,
) -> Arc<Lane> {
    let placer = Placer::new(Arc::new(Inventory::detect()), DeviceChoice::Cpu);
    let claim = Arc::new(Budget::new(None).enter().settle().unwrap());
    let devices = vec![device; executors.len()];
    let mut berths = placer.berths(devices.iter(), 1, &claim);
    let stake = limited.and_then(|(limiter, count)| {
        let resource = NeededResource {
            name: "r".to_owned(),
            count,
            global: true,
        };
        let group = InstanceGroup {
            resources: vec![resource],
            priority: 1,
            ..InstanceGroup::default()
        };
        limiter.join(berths[0].device.id(), &group).unwrap()
    });
    for berth in &mut berths {
        berth.stake = stake.clone();
    }
    let instances = berths.into_iter().zip(executors);
    let instances = instances.map(|(berth, executor)| {
        let remake: Box<dyn FnMut(bool) -> Result<_, LoadError> + Send> = match mends {
            true => Box::new(|_| Ok(failing([]))),
            false => Box::new(|_| {
                Err(LoadError::Provider {
                    device: "simulated:0".to_owned(),
                    reason: "gone".to_owned(),
                })
            }),
        };
        let stacking = Stacking {
            batched: true,
            ..Stacking::default()
        };
        let mut instance = Instance::new(
            "m".to_owned(),
            berth,
            executor,
            remake,
            Arc::new(stacking),
            Arc::default(),
            Arc::clone(&clock),
        );
        instance.bound(longest);
        instance
    });
    let instances = instances.collect();
    let breaker = Breaker::new(BreakerPolicy::default());
    Lane::new(
        Policy::default(),
        instances,
        clock,
        Changes::default(),
        breaker,
    )
}

fn virtual_clock() -> Arc<dyn Clock> {
    Arc::new(VirtualClock::default())
}

fn submit(lane: &Arc<Lane>) -> Seat {
    submit_rows(lane, 1)
}

fn submit_rows(lane: &Arc<Lane>, rows: usize) -> Seat {
    let item = Item {
        rows,
        length: 1,
        class: ShapeClass(0),
        deadline: None,
        level: 0,
    };
    let mut inputs = vec![Tensor {
        dtype: Dtype::Fp32,
        shape: Shape::new(&[rows as i64, 1]),
        data: vec![0; 4 * rows].into(),
    }];
    lane.submit(lane.clock.now(), item, None, &mut inputs)
        .unwrap()
}

/// The batch that leaves now.
fn departs(lane: &Lane) -> Box<Instance> {
    let decision = lane.lock().decide(lane.clock.now());
    match decision {
        Decision::Do(Next::Run(instance)) => instance,
        _ => panic!("no batch leaves"),
    }
}

/// Whether no batch leaves now.
fn waits(lane: &Lane) -> bool {
    let mut core = lane.lock();
    matches!(core.decide(lane.clock.now()), Decision::Wait)
}

fn told(seat: &mut Seat) -> Code {
    seat.receiver
        .try_recv()
        .expect("an answer")
        .unwrap_err()
        .code
}

/// Runs an executor's thread to its end.
fn run_to_the_end(lane: &Arc<Lane>) {
    let lane = Arc::clone(lane);
    let (ended, end) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        executor::run(&lane);
        ended.send(())
    });
    // The clock does not stand in for the machine's here: a thread that never ends has to fail.
    end.recv_timeout(Duration::from_mins(1))
        .expect("the thread ends");
    thread.join().unwrap().unwrap();
}

/// Two of the resource, one of which `busy` has; `large` waits for both, `small` needs one.
fn behind_a_large_one(executors: Vec<Box<dyn Executor>>) -> [Arc<Lane>; 3] {
    let limiter = Limiter::new(vec![OfferedResource {
        name: "r".to_owned(),
        count: 2,
        device: None,
    }]);
    let clock = virtual_clock();
    let limited = |executors, count| {
        let limited = Some((&limiter, count));
        lane(executors, limited, Arc::clone(&clock), false)
    };
    let busy = limited(vec![failing([])], 1);
    let large = limited(executors, 2);
    let small = limited(vec![failing([])], 1);
    [busy, large, small]
}

#[test]
fn whoever_is_cancelled_holds_nobody_up() {
    let [busy, large, small] = behind_a_large_one(vec![failing([])]);
    let _first = submit(&busy);
    let running = departs(&busy);
    let second = submit(&large);
    assert!(waits(&large), "one is taken");
    let _third = submit(&small);
    assert!(waits(&small), "another is before");
    drop(second);
    let other = departs(&small);
    drop(busy.give_back(running));
    drop(small.give_back(other));
}

#[test]
fn an_executor_that_goes_down_holds_nobody_up() {
    let [busy, large, small] = behind_a_large_one(vec![failing([])]);
    let _first = submit(&busy);
    let running = departs(&busy);
    let mut second = submit(&large);
    assert!(waits(&large));
    let _third = submit(&small);
    assert!(waits(&small));
    let mut down = large.lock().idle.pop().unwrap();
    large.executor_down(&mut down, &broken());
    assert_eq!(told(&mut second), Code::Unavailable);
    let other = departs(&small);
    drop(busy.give_back(running));
    drop(small.give_back(other));
}

#[test]
fn a_version_that_is_taken_out_holds_nobody_up() {
    let [busy, large, small] = behind_a_large_one(vec![failing([]), failing([])]);
    let _first = submit(&busy);
    let running = departs(&busy);
    let mut second = submit(&large);
    assert!(waits(&large));
    let _third = submit(&small);
    assert!(waits(&small));
    let down = large.lock().idle.pop().unwrap();
    large.lock().take_out(Some("too many died".to_owned()));
    let failed = NotMended {
        reason: "gone".to_owned(),
        death: None,
    };
    large.not_back(&down, &broken(), &failed);
    assert_eq!(told(&mut second), Code::Unavailable);
    let other = departs(&small);
    drop(busy.give_back(running));
    drop(small.give_back(other));
}

#[test]
fn nobody_waits_for_an_executor_that_has_ended() {
    let executors = vec![failing([lost()]), failing([lost()])];
    let lane = lane(executors, None, virtual_clock(), false);
    let mut seat = submit(&lane);
    let mut running = departs(&lane);
    lane.close();
    assert!(matches!(lane.next(None), Next::End(_)));
    assert_eq!(lane.executors_alive(), 1);
    let broken = running.serve().unwrap_err();
    lane.executor_down(&mut running, &broken);
    assert_eq!(told(&mut seat), Code::Unavailable);
}

#[test]
fn nobody_waits_for_an_executor_that_is_given_up() {
    let executors = vec![failing([]), failing([lost()])];
    let lane = lane(executors, None, virtual_clock(), false);
    let mut seat = submit(&lane);
    let mut running = departs(&lane);
    let mut dead = lane.lock().idle.pop().unwrap();
    let died = Broken {
        death: Some(death(1)),
        ..broken()
    };
    lane.executor_down(&mut dead, &died);
    lane.close();
    let broken = running.serve().unwrap_err();
    lane.executor_down(&mut running, &broken);
    assert_eq!(lane.queued(), 1, "a worker is to come back");
    lane.executor_given_up(dead.berth.group, true);
    assert_eq!(told(&mut seat), Code::Unavailable);
}

#[test]
fn a_thread_ends_whose_executor_cannot_be_made_again() {
    let lane = lane(vec![failing([lost()])], None, virtual_clock(), false);
    let mut seat = submit(&lane);
    lane.close();
    run_to_the_end(&lane);
    assert_eq!(told(&mut seat), Code::Unavailable);
}

#[test]
fn a_closed_lane_answers_whom_its_worker_was_to_come_back_for() {
    let executor = failing([RunError::Died(death(2))]);
    let lane = lane(vec![executor], None, Arc::new(Rushing::default()), true);
    // The second death of late is followed by a pause.
    lane.breaker
        .died(lane.clock.now(), &"cpu".into(), &death(1));
    let mut seat = submit(&lane);
    lane.close();
    run_to_the_end(&lane);
    assert!(seat.receiver.try_recv().expect("an answer").is_ok());
}

#[test]
fn a_closed_lane_tells_whom_no_worker_comes_back_for() {
    let executor = failing([RunError::Died(death(2))]);
    let lane = lane(vec![executor], None, Arc::new(Rushing::default()), false);
    let mut seat = submit(&lane);
    lane.close();
    run_to_the_end(&lane);
    assert_eq!(told(&mut seat), Code::Unavailable);
}

#[test]
fn several_runs_that_hang_count_one_executor_out() {
    let there: Arc<OnceLock<std::sync::Weak<Lane>>> = Arc::default();
    let shared = Arc::clone(&there);
    // Before each run that hangs: another has hung in the same batch before the second.
    let mut expected = VecDeque::from([2, 1, 2]);
    let hangs = acts(move |rows| {
        if rows > 1 {
            return Err(RunError::OutOfMemory("full".to_owned()));
        }
        let lane = shared.get().and_then(std::sync::Weak::upgrade).unwrap();
        assert_eq!(Some(lane.executors_alive()), expected.pop_front());
        lane.look_for_hangs(lane.clock.now() + Duration::from_hours(1));
        assert_eq!(lane.executors_alive(), 1);
        Ok(())
    });
    let lane = lane(vec![failing([]), hangs], None, virtual_clock(), true);
    there.set(Arc::downgrade(&lane)).unwrap();
    for requests in [2, 1] {
        let mut seats: Vec<Seat> = (0..requests).map(|_| submit(&lane)).collect();
        let mut running = departs(&lane);
        assert!(running.serve().is_ok());
        lane.welcome(&mut running);
        assert_eq!(lane.executors_alive(), 2);
        for seat in &mut seats {
            assert_eq!(told(seat), Code::Internal);
        }
        drop(lane.give_back(running));
    }
}

#[test]
fn an_answer_that_nobody_looks_at_keeps_no_other() {
    let lane = lane(vec![failing([])], None, virtual_clock(), true);
    lane.preserve_order();
    let is_turn = |seat: &Seat| {
        let turn = pin!(seat.turn.as_ref().unwrap().comes(lane.clock.as_ref(), None));
        let polled = turn.poll(&mut Context::from_waker(Waker::noop()));
        polled.is_ready()
    };
    let (first, second) = (submit(&lane), submit(&lane));
    assert!(is_turn(&first) && !is_turn(&second));
    let mut running = departs(&lane);
    assert!(!is_turn(&second));
    assert!(running.serve().is_ok());
    assert!(is_turn(&second));
    drop(lane.give_back(running));
}

#[test]
fn only_what_is_no_larger_than_what_was_quick_is_driven() {
    let inventory = Inventory::detect();
    let cpu = inventory.choose(&DeviceChoice::Cpu, &DeviceChoice::Cpu);
    let device = Arc::clone(&cpu.unwrap()[0]);
    // No time passes while it runs.
    let executors = vec![failing([])];
    let lane = lane_on(device, None, executors, None, virtual_clock(), true);
    let run = |rows| {
        let seat = submit_rows(&lane, rows);
        let mut running = departs(&lane);
        assert!(running.serve().is_ok());
        drop(lane.give_back(running));
        seat.quick
    };
    assert!(!run(2), "nothing is known yet");
    let mut small = submit_rows(&lane, 2);
    assert!(small.quick);
    lane.drive();
    assert!(small.receiver.try_recv().unwrap().is_ok());
    // One that is larger wakes a thread, and so does whoever would run it along.
    let mut large = submit_rows(&lane, 4);
    let mut company = submit_rows(&lane, 1);
    assert!(!large.quick && company.quick);
    lane.drive();
    assert!(large.receiver.is_empty() && company.receiver.is_empty());
    let mut running = departs(&lane);
    assert!(running.serve().is_ok());
    drop(lane.give_back(running));
    assert!(large.receiver.try_recv().unwrap().is_ok());
    assert!(company.receiver.try_recv().unwrap().is_ok());
    // It was quick with that too.
    assert!(submit_rows(&lane, 5).quick && !submit_rows(&lane, 6).quick);
}

/// A lane whose instance has run one of three batches with what was lent to it.
fn with_a_loan() -> (Arc<Lane>, Box<Instance>, Lender) {
    let lane = lane(vec![failing([])], None, virtual_clock(), true);
    let (loan, lender) = Loan::new(failing([]), 3);
    assert!(lane.lend(loan));
    let _seat = submit(&lane);
    let mut instance = departs(&lane);
    assert!(instance.serve().is_ok());
    (lane, instance, lender)
}

#[test]
fn a_loan_recalled_as_its_batch_ends_comes_back() {
    let (lane, instance, mut lender) = with_a_loan();
    assert!(lender.returned.try_recv().is_err());
    lender.enough.store(true, Ordering::Release);
    assert!(lane.recall().is_none(), "it is neither running nor idle");
    drop(lane.give_back(instance));
    assert_eq!(lender.returned.try_recv().unwrap().1, 2);
}

#[test]
fn what_is_lent_to_an_instance_that_goes_down_is_lost_at_once() {
    let (lane, mut instance, mut lender) = with_a_loan();
    lane.executor_down(&mut instance, &broken());
    assert!(instance.give_back().is_none());
    assert!(matches!(
        lender.returned.try_recv(),
        Err(TryRecvError::Closed)
    ));
}

#[test]
fn a_rest_is_over_though_who_began_it_is_not_back() {
    let clock = Arc::new(VirtualClock::default());
    let executors = vec![failing([]), failing([])];
    let lane = lane(executors, None, Arc::clone(&clock) as Arc<dyn Clock>, true);
    let died = |worker| Broken {
        death: Some(death(worker)),
        ..broken()
    };
    let _first = submit(&lane);
    let mut early = departs(&lane);
    let _second = submit(&lane);
    let mut late = departs(&lane);
    let policy = BreakerPolicy::default();
    lane.executor_down(&mut early, &died(1));
    for worker in 2..=policy.deaths as u64 {
        lane.executor_down(&mut late, &died(worker));
    }
    lane.executor_up(early.berth.group, &died(1));
    assert_eq!(lane.executors_alive(), 0);
    let over = Moment::ORIGIN + policy.rest;
    clock.0.store(over.as_nanos(), Ordering::Relaxed);
    let failed = NotMended {
        reason: "no descriptors".to_owned(),
        death: None,
    };
    lane.not_back(&late, &died(0), &failed);
    assert_eq!(lane.executors_alive(), 1);
}
