//! A model of a client and a server. Each text holds the number of rows that its reply tells of, so that a wrong pair shows.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Simple,
    Several(u8),
    Unnamed,
    Define(u8),
    Run(u8),
    DefineWithFlush(u8),
    Deallocate(u8),
    Pipeline(u8, bool),
    Fails,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Simple),
        (2u8..5).prop_map(Step::Several),
        Just(Step::Unnamed),
        (0u8..3).prop_map(Step::Define),
        (0u8..3).prop_map(Step::Run),
        (0u8..3).prop_map(Step::DefineWithFlush),
        (0u8..3).prop_map(Step::Deallocate),
        (2u8..5, any::<bool>()).prop_map(|(count, syncs)| Step::Pipeline(count, syncs)),
        Just(Step::Fails),
    ]
}

type Chunk = (Direction, Vec<u8>);

#[derive(Default)]
struct Model {
    number: usize,
    names: [Option<usize>; 3],
    chunks: Vec<Chunk>,
    /// Statements that succeed, in order: the number of each.
    expected: Vec<usize>,
}

impl Model {
    fn run(steps: &[Step]) -> Model {
        let mut model = Model { number: 1, ..Model::default() };
        // So that no stream is empty.
        model.step(&Step::Simple);
        steps.iter().for_each(|step| model.step(step));
        model
    }

    fn text(&mut self) -> (usize, String) {
        self.number += 1;
        (self.number, format!("SELECT {}", self.number))
    }

    fn result(number: usize) -> Vec<u8> {
        [row(), complete(&format!("SELECT {number}"))].concat()
    }

    fn exchange(&mut self, request: &[Vec<u8>], reply: &[Vec<u8>]) {
        self.chunks.push((Direction::Request, request.concat()));
        self.chunks.push((Direction::Response, reply.concat()));
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Simple => {
                let (number, text) = self.text();
                self.exchange(&[query(&text)], &[Self::result(number), ready(b'I')]);
                self.expected.push(number);
            }
            Step::Several(count) => {
                let (numbers, texts): (Vec<_>, Vec<_>) = (0..*count).map(|_| self.text()).unzip();
                let replies: Vec<_> = numbers.iter().map(|number| Self::result(*number)).collect();
                self.exchange(&[query(&texts.join("; "))], &[replies.concat(), ready(b'I')]);
                self.expected.extend(numbers);
            }
            Step::Unnamed => {
                let (number, text) = self.text();
                let request = [parse("", &text), bind("", ""), execute(""), sync()];
                self.exchange(&request, &[empty(b'1'), empty(b'2'), Self::result(number), ready(b'I')]);
                self.expected.push(number);
            }
            Step::Define(name) => {
                let (number, text) = self.text();
                let spelled = format!("s{name}");
                let close = named(b'C', b'S', &spelled);
                self.exchange(&[close, parse(&spelled, &text), sync()], &[empty(b'3'), empty(b'1'), ready(b'I')]);
                self.names[usize::from(*name)] = Some(number);
            }
            Step::DefineWithFlush(name) => {
                let (number, text) = self.text();
                let spelled = format!("s{name}");
                self.exchange(&[named(b'C', b'S', &spelled), empty(b'H')], &[empty(b'3')]);
                let describe = named(b'D', b'S', &spelled);
                let reply = [empty(b'1'), message(b't', &[b"\0\0"]), empty(b'n')];
                self.exchange(&[parse(&spelled, &text), describe, empty(b'H')], &reply);
                self.exchange(
                    &[bind("", &spelled), execute(""), sync()],
                    &[empty(b'2'), Self::result(number), ready(b'I')],
                );
                self.names[usize::from(*name)] = Some(number);
                self.expected.push(number);
            }
            Step::Run(name) => {
                let request = [bind("", &format!("s{name}")), execute(""), sync()];
                match self.names[usize::from(*name)] {
                    Some(number) => {
                        self.exchange(&request, &[empty(b'2'), Self::result(number), ready(b'I')]);
                        self.expected.push(number);
                    }
                    None => self.exchange(&request, &[failed("26000"), ready(b'I')]),
                }
            }
            Step::Deallocate(name) => {
                if self.names[usize::from(*name)].take().is_some() {
                    let request = query(&format!("DEALLOCATE s{name}"));
                    self.exchange(&[request], &[complete("DEALLOCATE"), ready(b'I')]);
                }
            }
            Step::Pipeline(count, syncs) => {
                let mut request = Vec::new();
                let mut replies = Vec::new();
                for last in (0..*count).rev() {
                    let (number, text) = self.text();
                    request.extend([parse("", &text), bind("", ""), execute("")]);
                    let mut reply = [empty(b'1'), empty(b'2'), Self::result(number)].concat();
                    if *syncs || last == 0 {
                        request.push(sync());
                        reply.extend(ready(b'I'));
                    }
                    replies.push(reply);
                    self.expected.push(number);
                }
                self.chunks.push((Direction::Request, request.concat()));
                if *syncs {
                    self.chunks.extend(replies.into_iter().map(|reply| (Direction::Response, reply)));
                } else {
                    self.chunks.push((Direction::Response, replies.concat()));
                }
            }
            Step::Fails => {
                let (_, text) = self.text();
                let request = [parse("", &text), bind("", ""), execute(""), sync()];
                self.exchange(&request, &[failed("42601"), ready(b'I')]);
            }
        }
    }
}

/// The numbers of statements that succeeded. Panics where text and reply do not belong together.
fn numbers(out: &[Event]) -> Vec<Option<usize>> {
    let mut numbers = Vec::new();
    for event in out {
        let Event::Statement(statement) = event else { continue };
        let counts = matches!(statement.kind, Kind::Simple | Kind::Execute) && statement.status == Status::Ok;
        let Some(rows) = statement.rows_sent.filter(|_| counts) else { continue };
        match raw(statement) {
            Some("?") => numbers.push(None),
            Some(text) => {
                // Before the end of its `Query` was seen, a statement carries all of the text.
                let of_this_reply = text.split("; ").any(|piece| piece == format!("SELECT {rows}"));
                assert!(of_this_reply, "{text} was paired with the reply to SELECT {rows}");
                numbers.push(Some(rows as usize));
            }
            None => panic!("an execution without text"),
        }
    }
    numbers
}

fn play(c: &mut Connection, chunks: &[Chunk]) {
    for (direction, bytes) in chunks {
        c.data(*direction, bytes, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_statement_is_counted_once_with_its_text(steps in prop::collection::vec(step(), 1..30)) {
        let model = Model::run(&steps);
        let mut c = Connection::ready();
        play(&mut c, &model.chunks);
        let expected: Vec<_> = model.expected.iter().copied().map(Some).collect();
        prop_assert_eq!(numbers(&c.out), expected);
        prop_assert!(!c.out.iter().any(|event| matches!(event, Event::Anomaly(_))));
    }

    #[test]
    fn losses_never_pair_a_text_with_another_reply(
        steps in prop::collection::vec(step(), 1..30),
        losses in prop::collection::vec((any::<prop::sample::Index>(), 0usize..4), 1..5),
        older: bool,
    ) {
        let model = Model::run(&steps);
        let mut chunks: Vec<Option<Chunk>> = model.chunks.into_iter().map(Some).collect();
        for (place, count) in losses {
            let place = place.index(chunks.len());
            let end = (place + count).min(chunks.len());
            chunks.splice(place..end, [None]);
        }
        let mut c = if older { Connection::default() } else { Connection::ready() };
        for chunk in &chunks {
            match chunk {
                Some((direction, bytes)) => c.data(*direction, bytes, 0),
                None => c.gap(),
            }
        }
        numbers(&c.out);
        // Two more exchanges always find the place again.
        for number in [900_000usize, 900_001] {
            let text = format!("SELECT {number}");
            play(&mut c, &[
                (Direction::Request, query(&text)),
                (Direction::Response, [Model::result(number), ready(b'I')].concat()),
            ]);
        }
        prop_assert_eq!(numbers(&c.out).last().copied().flatten(), Some(900_001));
    }

    #[test]
    fn cut_records_never_pair_a_text_with_another_reply(
        steps in prop::collection::vec(step(), 1..30),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..5),
    ) {
        let model = Model::run(&steps);
        let mut chunks: Vec<(Chunk, usize)> = model.chunks.into_iter().map(|chunk| (chunk, 0)).collect();
        for (place, keep) in cuts {
            let place = place.index(chunks.len());
            let ((_, bytes), missing) = &mut chunks[place];
            let keep = keep.index(bytes.len() + 1);
            *missing += bytes.len() - keep;
            bytes.truncate(keep);
        }
        let mut c = Connection::ready();
        for ((direction, bytes), missing) in &chunks {
            c.data(*direction, bytes, *missing);
        }
        for event in &mut c.out {
            // A text that was cut is not the one whose number it shows.
            if let Event::Statement(statement) = event
                && matches!(&statement.text, Text::Known(text) if text.truncated())
            {
                statement.text = Text::Unknown;
            }
        }
        numbers(&c.out);
    }
}
