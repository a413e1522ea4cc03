//! Random lives of a saga under the eyes of the observer. Invariant: each thing that the observer can report is
//! reported for a planted fault, and only that one.

use std::{collections::BTreeSet, sync::OnceLock, time::Duration};

use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, TestRunner},
};

use super::{
    observer::Observer,
    script::play,
    world::{Answer, World, event},
};
use crate::{
    Saga,
    id::{Direction, Participant},
    input::{Command, Input, RedrivenEvent, Status},
    mutation::{self, Mutation},
    outcome::Runs,
};

const KINDS: [&str; 8] = [
    "OrderCreated",
    "PaymentProcessed",
    "InventoryUpdated",
    "SagaFailed",
    "OrderCompleted",
    "PaymentVoided",
    "StockCounted",
    "OrderCancelled",
];
const WHO: [&str; 4] = ["order", "payment", "inventory", "mailer"];
/// Each life has some of these.
const SHAPES: [&str; 16] = [
    "with payment outside",
    "with inventory outside",
    "with payment.OrderCreated pivot",
    "with inventory.PaymentProcessed nothing-to-undo",
    "with order.InventoryUpdated compensable",
    "with order.InventoryUpdated after OrderCreated",
    "with payment.OrderCreated block",
    "with inventory.PaymentProcessed skip",
    "with member mailer OrderCancelled compensating",
    "with member mailer SagaFailed both",
    "with inventory.StockCounted after PaymentProcessed",
    "with order compensate-on PaymentVoided",
    "with payment.OrderCreated emits PaymentNoted after 5s",
    "with payment.OrderCreated deadline 3s",
    "with inventory finish-on StockCounted",
    "with only payment",
];
/// Small bounds are met often; two emissions tell their ids apart.
const ALWAYS: &str =
    "with parked-max 3; with inline-max 6; with steps-max 8; with payment.OrderCreated emits PaymentNoted";

#[derive(Clone, Debug)]
enum Act {
    Event {
        kind: usize,
        id: u8,
        other: bool,
    },
    /// `to`: whom it asks for a step.
    Request {
        kind: usize,
        id: u8,
        other: bool,
        to: Option<usize>,
    },
    /// The next so many calls answer so.
    Answer {
        who: usize,
        undo: bool,
        answer: Answer,
        times: usize,
    },
    Return {
        call: usize,
        answer: Answer,
    },
    /// A call that was made once comes back, perhaps again.
    LateReturn {
        call: usize,
    },
    Pass {
        millis: u64,
        deadlines: bool,
    },
    /// To the time that the saga asked for.
    Wake,
    Cancel,
    Retry,
    Resolve {
        accept: bool,
        who: Option<usize>,
    },
    Redrive {
        letter: usize,
        who: usize,
    },
    Discard {
        letter: usize,
    },
    Crash,
    Serve {
        who: usize,
        serving: bool,
    },
    Upgrade {
        who: usize,
    },
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        3 => Just(Answer::Ok),
        2 => Just(Answer::Rejects("NO".to_owned())),
        2 => Just(Answer::Retries("BUSY".to_owned(), None)),
        1 => Just(Answer::Retries("BUSY".to_owned(), Some(Duration::from_secs(4)))),
        2 => Just(Answer::Crashes { uncertain: false }),
        2 => Just(Answer::Crashes { uncertain: true }),
        1 => Just(Answer::NotYet),
        1 => Just(Answer::Invalid("BAD".to_owned())),
        1 => Just(Answer::Unreadable),
        1 => Just(Answer::Unsent("AWAY".to_owned())),
        1 => Just(Answer::Stuck("STUCK".to_owned())),
        1 => Just(Answer::Nothing),
        3 => Just(Answer::Hangs),
        4 => Just(Answer::Sends),
    ]
}

fn answers() -> impl Strategy<Value = Act> {
    let times = prop_oneof![3 => Just(1), 1 => 2..5usize];
    (0..WHO.len(), any::<bool>(), answer(), times).prop_map(|(who, undo, answer, times)| Act::Answer {
        who,
        undo,
        answer,
        times,
    })
}

fn act() -> impl Strategy<Value = Act> {
    let at = || any::<u8>().prop_map(usize::from);
    prop_oneof![
        6 => (0..KINDS.len(), 0..3u8, prop::bool::weighted(0.1)).prop_map(|(kind, id, other)| Act::Event { kind, id, other }),
        2 => (0..KINDS.len(), 0..3u8, prop::bool::weighted(0.1), prop::option::of(0..WHO.len()))
            .prop_map(|(kind, id, other, to)| Act::Request { kind, id, other, to }),
        5 => answers(),
        3 => (at(), answer()).prop_map(|(call, answer)| Act::Return { call, answer }),
        2 => at().prop_map(|call| Act::LateReturn { call }),
        2 => (0..8000u64, any::<bool>()).prop_map(|(millis, deadlines)| Act::Pass { millis, deadlines }),
        4 => Just(Act::Wake),
        1 => Just(Act::Cancel),
        1 => Just(Act::Retry),
        1 => (any::<bool>(), prop::option::of(0..WHO.len())).prop_map(|(accept, who)| Act::Resolve { accept, who }),
        1 => (at(), 0..WHO.len()).prop_map(|(letter, who)| Act::Redrive { letter, who }),
        1 => at().prop_map(|letter| Act::Discard { letter }),
        2 => Just(Act::Crash),
        1 => (0..WHO.len(), any::<bool>()).prop_map(|(who, serving)| Act::Serve { who, serving }),
        1 => (0..WHO.len()).prop_map(|who| Act::Upgrade { who }),
    ]
}

/// Which shapes (bits), and what happens.
type Case = (u16, Vec<Act>);

fn life() -> impl Strategy<Value = Case> {
    let start = Just(Act::Event { kind: 0, id: 0, other: false });
    let acts = (prop::collection::vec(answers(), 0..5), start, prop::collection::vec(act(), 1..40))
        .prop_map(|(first, start, then)| first.into_iter().chain([start]).chain(then).collect());
    // Few shapes at a time, and the one that leaves payment alone rarely.
    let shapes = (any::<u16>(), any::<u16>(), prop::bool::weighted(0.1))
        .prop_map(|(one, other, alone)| (one & other & 0x7fff) | if alone { 0x8000 } else { 0 });
    (shapes, acts)
}

struct Life {
    world: World,
    /// What would be there after a crash.
    durable: World,
}

/// What a life breaks, if it breaks something.
fn live(shapes: u16, acts: &[Act]) -> Result<(), String> {
    let chosen: Vec<&str> = (0..SHAPES.len()).filter(|bit| shapes & (1 << bit) != 0).map(|bit| SHAPES[bit]).collect();
    // Participants of the shapes must be there before one of them leaves payment alone.
    let mut world = play(&format!("{}; {ALWAYS}", chosen.join("; ")).replace("with only payment; ", ""));
    if chosen.contains(&"with only payment") {
        world.topology.members.retain(|member| member.name.as_str() == "payment");
    }
    world.observer = Some(Observer::default());
    let mut life = Life { durable: world.clone(), world };
    for act in acts {
        life.act(act)?;
    }
    life.drain()
}

impl Life {
    fn act(&mut self, act: &Act) -> Result<(), String> {
        let world = &mut self.world;
        let by = || "ann".to_owned();
        match act {
            Act::Event { kind, id, other } => {
                let data = if *other { "other" } else { "{}" };
                world.receive(event(KINDS[*kind], &format!("{}-{id}", KINDS[*kind]), data));
            }
            Act::Request { kind, id, other, to } => {
                let data = if *other { "other" } else { "{}" };
                let event = event(KINDS[*kind], &format!("{}-{id}", KINDS[*kind]), data);
                world.requested(event, to.map(|who| WHO[who]));
            }
            Act::Answer { who, undo, answer, times } => self.answer(*who, *undo, answer, *times),
            Act::Return { call, answer } if !world.hanging.is_empty() => {
                let call = world.hanging.remove(call % world.hanging.len());
                let answer = if *answer == Answer::Hangs { &Answer::Ok } else { answer };
                world.end(&call, answer);
            }
            Act::LateReturn { call } if !world.made.is_empty() => {
                let call = world.made[call % world.made.len()].clone();
                let of = |call: &crate::outcome::Call| (call.step_id.clone(), call.attempt, call.send, call.runs);
                world.hanging.retain(|out| of(out) != of(&call));
                world.end(&call, &Answer::Ok);
            }
            Act::Return { .. } | Act::LateReturn { .. } => {}
            Act::Pass { millis, deadlines } => {
                world.now = world.now.after(Duration::from_millis(*millis));
                world.input(Input::Due { deadlines: *deadlines });
            }
            Act::Wake => drop(self.wake()),
            Act::Cancel => drop(world.input(Input::Operator(Command::Cancel { by: by(), reason: by() }))),
            Act::Retry => drop(world.input(Input::Operator(Command::Retry { by: by() }))),
            Act::Resolve { accept, who } => {
                let participant = who.map(|who| Participant::new(WHO[who]));
                let command = Command::Resolve { by: by(), reason: by(), accept: *accept, participant };
                world.input(Input::Operator(command));
            }
            Act::Redrive { letter, who } if !world.letters.is_empty() => {
                let letter = world.letters[letter % world.letters.len()].clone();
                let participant = letter.participant.unwrap_or_else(|| WHO[*who].into());
                let event = RedrivenEvent(letter.event);
                let command = Command::Redrive { by: by(), letter: letter.key, participant, event };
                world.input(Input::Operator(command));
            }
            Act::Discard { letter } if !world.letters.is_empty() => {
                let letter = world.letters[letter % world.letters.len()].key.clone();
                world.input(Input::Operator(Command::Discard { by: by(), letter, reason: by() }));
            }
            Act::Redrive { .. } | Act::Discard { .. } => {}
            Act::Crash => self.crash(),
            Act::Serve { who, serving } => self.serve(WHO[*who], *serving),
            Act::Upgrade { who } => world.digests.push((WHO[*who].into(), format!("d{}", world.digests.len() + 2))),
        }
        self.look()
    }

    fn answer(&mut self, who: usize, undo: bool, answer: &Answer, times: usize) {
        let direction = if undo { Direction::Undo } else { Direction::Forward };
        let answer = if undo && *answer == Answer::Hangs { Answer::Ok } else { answer.clone() };
        let answers = vec![answer; times].into();
        self.world.answers.push((WHO[who].into(), direction, answers));
    }

    /// After each act: what the observer found; and where all is durable, what the record itself says.
    fn look(&mut self) -> Result<(), String> {
        if let Some(violation) = self.world.violation {
            return Err(violation.to_owned());
        }
        let out = self.world.hanging.iter().any(|call| self.current(call) && !self.outside(call));
        if out {
            return Ok(());
        }
        let saga = &self.world.saga;
        // With a fault planted the observer alone must find it.
        if !mutation::planted() {
            let checked = saga.check(&self.world.topology);
            checked.map_err(|broken| format!("check: {}", broken.what))?;
        }
        let back = Saga::decode(&saga.encode()).map_err(|error| error.to_string())?;
        if back != *saga {
            return Err("the record does not come back as it was".to_owned());
        }
        self.durable = self.world.clone();
        Ok(())
    }

    fn current(&self, call: &crate::outcome::Call) -> bool {
        let running =
            |step: &crate::step::Step| step.id() == call.step_id && step.started() && step.attempts == call.attempt;
        self.world.saga.steps.iter().any(running)
    }
    fn outside(&self, call: &crate::outcome::Call) -> bool {
        let service = self.world.topology.member(&call.participant).is_some_and(|member| member.outside_effects);
        service || call.send > 0 && call.runs == Runs::Outside
    }

    /// All that was not durable is lost; calls in doubt are said to be.
    fn crash(&mut self) {
        self.world = self.durable.clone();
        self.world.saga = Saga::decode(&self.world.saga.encode()).expect("it was encoded");
        self.world.hanging.clear();
        for call in self.world.saga.in_doubt() {
            self.world.input(Input::Started { call, interrupted: true });
        }
    }

    fn serve(&mut self, who: &str, serving: bool) {
        if let Some(member) = self.world.topology.members.iter_mut().find(|member| member.name.as_str() == who) {
            member.serving = serving;
        }
        self.world.input(Input::TopologyChanged);
    }

    fn wake(&mut self) -> bool {
        let wake = self.world.saga.wake(&self.world.topology);
        let Some(at) = [wake.at, wake.deadline].into_iter().flatten().min() else {
            return false;
        };
        self.world.now = self.world.now.max(at);
        self.world.input(Input::Due { deadlines: true });
        true
    }

    /// The world gets well: then every saga ends, waits for an event, or for an operator, and an operator can end it.
    fn drain(&mut self) -> Result<(), String> {
        self.world.answers.clear();
        for who in WHO {
            self.serve(who, true);
            self.look()?;
        }
        for round in 0..16 {
            while let Some(call) = self.world.hanging.pop() {
                self.world.end(&call, &Answer::Ok);
                self.look()?;
            }
            let mut turns = 0;
            while self.wake() {
                self.look()?;
                turns += 1;
                if turns > 200 {
                    return Err("no end: it wakes again and again".to_owned());
                }
            }
            match self.world.saga.status() {
                Status::Waiting | Status::Running if self.world.saga.parked().next().is_some() => {
                    return Err("no next action: an event is parked and nothing wakes it".to_owned());
                }
                Status::Waiting | Status::Running | Status::Completed | Status::Compensated => {
                    return Ok(());
                }
                Status::NeedsOperator if self.world.saga.next_commands().is_empty() => {
                    return Err("no next action: an operator is needed and told nothing".to_owned());
                }
                Status::NeedsOperator if round == 0 => self.act(&Act::Retry)?,
                Status::NeedsOperator => self.act(&Act::Resolve { accept: true, who: None })?,
                Status::Compensating | Status::Finishing | Status::Quarantined => {
                    return Err("no next action: neither a time, nor a call, nor an operator".to_owned());
                }
            }
        }
        Err("no next action: an operator cannot end it".to_owned())
    }
}

#[test]
fn random_lives_keep_the_invariants() {
    let mut runner = TestRunner::new(Config { cases: 3000, failure_persistence: None, ..Config::default() });
    let result = runner.run(&life(), |(shapes, acts)| live(shapes, &acts).map_err(TestCaseError::fail));
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// Everything that a planted fault leads the observer to report, over many lives.
fn reported(mutation: Mutation) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (shapes, acts) in lives() {
        if let Err(violation) = mutation::with(mutation, || live(*shapes, acts)) {
            found.insert(violation);
        }
    }
    found
}

/// The same ones for every fault, since making them takes about as long as living them.
fn lives() -> &'static [Case] {
    static LIVES: OnceLock<Vec<Case>> = OnceLock::new();
    LIVES.get_or_init(|| {
        let mut runner = TestRunner::deterministic();
        (0..1400).map(|_| life().new_tree(&mut runner).expect("a life").current()).collect()
    })
}

macro_rules! mutations {
    ($($name:ident: $mutation:ident => $violation:literal;)*) => {$(
        #[test]
        fn $name() {
            assert_eq!(reported(Mutation::$mutation), BTreeSet::from([$violation.to_owned()]));
        }
    )*};
}

mutations! {
    mutation_endless_attempts: EndlessAttempts => "attempts have no end";
    mutation_one_key: OneKeyForAll => "two directions or ordinals share a key";
    mutation_order_of_undoing: UndoInOrder => "steps are not undone in reverse order of start";
    mutation_forgotten_step: ForgetDone => "a done step is not undone";
    mutation_undone_twice: UndoTwice => "a step is undone twice";
    mutation_terminal_left: LeaveTerminal => "a terminal state is left";
    mutation_lost_retry: LoseRetry => "no next action: a retry's time is not asked for";
    mutation_forgotten_id: ForgetSeen => "an event is taken in twice";
    mutation_parked_without_bound: ParkWithoutBound => "a bound is broken: parked events";
    mutation_never_spills: NeverSpill => "a bound is broken: history in the record";
    mutation_one_emitted_id: OneEmittedId => "two events have one id";
    mutation_pivot_ignored: IgnorePivot => "something is undone behind the pivot";
    mutation_end_while_stuck: EndWhileStuck => "the end is said while a step is stuck";
    mutation_same_attempt: SameAttempt => "an attempt's number comes twice";
    mutation_announced_again: AnnounceAgain => "a failure is announced twice";
    mutation_forgotten_letter: ForgetLetter => "an open letter is not known to its saga";
    mutation_letter_does_not_keep: ForgetOpenLetters => "an open letter does not keep its saga";
    mutation_forward_behind_fence: ForwardBehindFence => "a forward step begins behind the fence";
    mutation_last_failure_wins: LastFailureWins => "a second failure replaces the first";
    mutation_accepted_again: AcceptAgain => "a step is done twice";
    mutation_silent_change: SilentChange => "the record changed and nothing was said of it";
    mutation_same_version: SameVersion => "a change without a version";
    mutation_too_many_steps: StepsWithoutBound => "a bound is broken: steps";
    mutation_ids_not_spilled: KeepIds => "a bound is broken: ids in the record";
    mutation_no_next_command: SayNoCommand => "no next action: an operator is needed and told nothing";
    mutation_held_for_ever: NeverSettle => "no next action: neither a time, nor a call, nor an operator";
    mutation_hot_timer: HotTimer => "no end: it wakes again and again";
    mutation_resolved_in_vain: ResolveNothing => "no next action: an operator cannot end it";
    mutation_begun_twice: BeginTwice => "a second request begins a saga that exists";
    mutation_ignored_request: AdmitIgnored => "a request is taken in that nobody acts on";
    mutation_answers_published: PublishAnswers => "what a request asked for is published";
    mutation_lost_in_the_record: LoseCount => "the record does not come back as it was";
    mutation_undone_with_other_data: SwapUndoData => "a step is undone with what another call left";
    mutation_late_writes_kept: KeepLateWrites => "writes of a late attempt are kept";
    mutation_forgotten_states: ForgetStates => "what a participant keeps is gone";
}

/// Random lives begin with an event that nobody asked for.
#[test]
fn mutation_deadline_of_what_was_asked_for() {
    let asked = || live(0, &[Act::Request { kind: 0, id: 0, other: false, to: Some(1) }]);
    assert_eq!(asked(), Ok(()));
    let found = mutation::with(Mutation::DeadlineOfAsked, asked);
    assert_eq!(found, Err("a time runs that is for whoever asked to keep".to_owned()));
}

/// Random lives seldom have a request out when the host stops, or a no behind one.
#[test]
fn mutations_of_what_follows_a_request() {
    let answer = |answer: Answer| Act::Answer { who: 1, undo: false, answer, times: 1 };
    let begun = Act::Event { kind: 0, id: 0, other: false };
    let lost = || live(0, &[answer(Answer::Sends), answer(Answer::Hangs), begun.clone(), Act::Crash]);
    assert_eq!(lost(), Ok(()));
    let found = mutation::with(Mutation::SendTwice, lost);
    assert_eq!(found, Err("a request leaves twice".to_owned()));
    let no = Answer::Rejects("NO".to_owned());
    let refused = || live(0, &[answer(Answer::Sends), answer(Answer::Ok), answer(no.clone()), begun.clone()]);
    assert_eq!(refused(), Ok(()));
    let found = mutation::with(Mutation::BelieveNo, refused);
    assert_eq!(found, Err("a plugin's no is believed although a request of its left".to_owned()));
}

/// Random lives hardly ever leave an event alone with what it waits for: a deadline, or another event, comes to its help.
#[test]
fn mutation_forgotten_early_event() {
    let alone = SHAPES.iter().position(|shape| *shape == "with only payment").expect("it is one of them");
    let not_yet = Act::Answer { who: 1, undo: false, answer: Answer::NotYet, times: 1 };
    let early = || live(1 << alone, &[not_yet.clone(), Act::Event { kind: 0, id: 0, other: false }]);
    assert_eq!(early(), Ok(()));
    let found = mutation::with(Mutation::ForgetEarly, early);
    assert_eq!(found, Err("no next action: an event is parked and nothing wakes it".to_owned()));
}
