//! What every exit says about a single record: name of the event, and attributes under the names of the catalogue.
//!
//! Exact statistics and servers' own numbers are metrics and have no event.

use crate::model::{
    Digest, Ending, Record, Signal,
    names::{attribute as a, event},
    signal::{Activity, Blocking, Circuit, Execution, Finding, Notice, NoticeKind, Peer, Plan},
};

use super::attributes::{self, Attributes, Value, cut};

/// An event, before it is told in the words of one exit.
pub(super) struct Event<'a> {
    /// Its name.
    pub(super) name: &'static str,
    /// Whether it is a failure, or something to be looked at.
    pub(super) weight: Weight,
    /// What it says.
    pub(super) attributes: Attributes<'a>,
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    Info,
    Warning,
    Error,
}

/// The event of a record; `None` for statistics and numbers. Texts of statements are cut to `text_bytes`, 0 for none.
pub(super) fn event(record: &Record, text_bytes: usize) -> Option<Event<'_>> {
    let mut event = match &record.signal {
        Signal::Execution(execution) => of_execution(execution, text_bytes),
        Signal::Plan(plan) => of_plan(plan, text_bytes),
        Signal::Activity(activity) => of_activity(activity, text_bytes),
        Signal::Blocking(blocking) => of_blocking(blocking, text_bytes),
        Signal::Finding(finding) => of_finding(finding, text_bytes),
        Signal::Interval(_) | Signal::Fact(_) => return None,
    };
    let origin = &record.origin;
    event.attributes.push((a::DB_SYSTEM_NAME, origin.instance.engine.name().into()));
    let names = [(a::DB_NAMESPACE, &origin.database), (a::USER_NAME, &origin.user)];
    event.attributes.extend(names.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?.into()))));
    if record.circuit != Circuit::Closed {
        event.attributes.push((a::CIRCUIT, record.circuit.name().into()));
    }
    Some(event)
}

/// The event of a notice.
pub(super) fn notice(notice: &Notice) -> Event<'_> {
    let mut attributes: Attributes<'_> = vec![
        (a::FEEDBACK_CATEGORY, notice.category.into()),
        (a::SEVERITY, notice.severity.into()),
        (a::SUBJECT, notice.subject.into()),
        (a::VALUE, notice.value.into()),
        (a::LIMIT, notice.limit.into()),
        (a::HELD_BACK, notice.suppressed.into()),
    ];
    if !notice.remediation.is_empty() {
        attributes.push((a::REMEDIATION, notice.remediation.into()));
    }
    let instance = notice.instance.as_ref().map(|instance| instance.service_instance_id.to_string());
    attributes.extend(instance.map(|id| (a::SERVICE_INSTANCE_ID, id.into())));
    let (name, weight) = match notice.kind {
        NoticeKind::Alert => (event::ALERT, Weight::Error),
        NoticeKind::Feedback => (event::FEEDBACK, Weight::Warning),
    };
    Event { name, weight, attributes }
}

/// What an execution says, as an event and as a span alike.
pub(super) fn execution(execution: &Execution, text_bytes: usize) -> Attributes<'_> {
    let mut attributes = statement(&execution.digest, text_bytes);
    attributes.push((a::QUERY_DURATION, execution.duration.as_secs_f64().into()));
    attributes.push((a::QUERY_ROWS, execution.rows.into()));
    attributes.push((a::SAMPLING_WEIGHT, execution.sampling.weight.into()));
    attributes.extend(execution.sampling.rule.as_deref().map(|rule| (a::SAMPLING_RULE, rule.into())));
    attributes.extend(execution.application.as_deref().map(|name| (a::APPLICATION, name.into())));
    attributes.extend(execution.plan.map(|plan| (a::PLAN_ID, plan.to_string().into())));
    match execution.ending {
        Ending::Ok => {}
        Ending::Failed(code) => attributes.extend(attributes::failure(code)),
        Ending::Incomplete => attributes.extend(attributes::failure(None)),
    }
    if let Some(Peer { connection, process }) = execution.session {
        attributes.push((a::SESSION_PROCESS, process.into()));
        attributes.extend((connection > 0).then(|| (a::SESSION_CONNECTION, connection.into())));
    }
    if let Some(situation) = execution.situation {
        attributes.push((a::TRANSACTION_POSITION, situation.position.into()));
        attributes.push((a::REPEATS, situation.repeats.into()));
        attributes.push((a::RETRY, situation.retry.into()));
    }
    attributes
}

fn of_execution(of: &Execution, text_bytes: usize) -> Event<'_> {
    let weight = if of.ending == Ending::Ok { Weight::Info } else { Weight::Error };
    Event { name: event::EXECUTION, weight, attributes: execution(of, text_bytes) }
}

fn of_plan(plan: &Plan, text_bytes: usize) -> Event<'_> {
    let mut attributes = statement(&plan.digest, text_bytes);
    attributes.push((a::PLAN_SOURCE, plan.source.name().into()));
    attributes.push((a::SAMPLING_WEIGHT, plan.sampling.weight.into()));
    attributes.extend(plan.id.map(|id| (a::PLAN_ID, id.to_string().into())));
    attributes.extend(plan.change.map(|change| (a::PLAN_PREVIOUS, change.previous.to_string().into())));
    attributes.extend(plan.masked.as_deref().map(|masked| (a::PLAN_TEXT, masked.into())));
    attributes.extend(plan.duration.map(|duration| (a::QUERY_DURATION, duration.as_secs_f64().into())));
    if let Some(facts) = &plan.facts {
        attributes.extend([
            (a::PLAN_OPERATION, (&*facts.operation).into()),
            (a::PLAN_COST, facts.cost.into()),
            (a::PLAN_ROWS, facts.rows.into()),
            (a::PLAN_DEPTH, facts.depth.into()),
            (a::PLAN_SEQ_SCAN, facts.has_seq_scan.into()),
            (a::PLAN_NESTED_LOOP, facts.has_nested_loop.into()),
            (a::PLAN_SPILLS, facts.spills.into()),
        ]);
    }
    let weight = if plan.change.is_some() { Weight::Warning } else { Weight::Info };
    Event { name: event::PLAN, weight, attributes }
}

/// The client's address stays here: it is personal data in some laws.
fn of_activity(activity: &Activity, text_bytes: usize) -> Event<'_> {
    let mut attributes = vec![
        (a::SESSION_PROCESS, activity.session.process.into()),
        (a::SESSION_STATE, attributes::session_state(activity.state).into()),
        (a::LASTING, activity.lasting.as_secs_f64().into()),
    ];
    if let Some(wait) = &activity.wait {
        attributes.push((a::WAIT_CLASS, (&*wait.class).into()));
        attributes.push((a::WAIT_EVENT, (&*wait.event).into()));
    }
    attributes.extend(activity.application.as_deref().map(|name| (a::APPLICATION, name.into())));
    attributes.extend(activity.digest.iter().flat_map(|digest| statement(digest, text_bytes)));
    Event { name: event::ACTIVITY, weight: Weight::Info, attributes }
}

fn of_blocking(blocking: &Blocking, text_bytes: usize) -> Event<'_> {
    let mut attributes = vec![
        (a::SESSION_PROCESS, blocking.blocked.process.into()),
        (a::BLOCKER_PROCESS, blocking.blocker.process.into()),
        (a::LASTING, blocking.waited.as_secs_f64().into()),
    ];
    attributes.extend(blocking.lock.as_deref().map(|lock| (a::LOCK_MODE, lock.into())));
    attributes.extend(blocking.relation.as_deref().map(|table| (a::DB_COLLECTION_NAME, table.into())));
    let digest = blocking.blocked_digest.iter().flat_map(|digest| statement(digest, text_bytes));
    // The table that is locked, not the one that the statement names.
    let known = blocking.relation.is_some();
    attributes.extend(digest.filter(|(name, _)| !(known && *name == a::DB_COLLECTION_NAME)));
    Event { name: event::BLOCKING, weight: Weight::Warning, attributes }
}

fn of_finding(finding: &Finding, text_bytes: usize) -> Event<'_> {
    let evidence: Vec<String> = finding.evidence.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut attributes = vec![
        (a::TOPIC, finding.topic.name().into()),
        (a::SEVERITY, finding.severity.name().into()),
        (a::FINDING_EVIDENCE, evidence.join(" ").into()),
    ];
    if !finding.objects.is_empty() {
        attributes.push((a::FINDING_OBJECTS, finding.objects.join(", ").into()));
    }
    attributes.extend(finding.plan.map(|plan| (a::PLAN_ID, plan.to_string().into())));
    attributes.extend(finding.digest.iter().flat_map(|digest| statement(digest, text_bytes)));
    Event { name: event::FINDING, weight: Weight::Warning, attributes }
}

/// What is said of a statement.
fn statement(digest: &Digest, text_bytes: usize) -> Attributes<'_> {
    let text = cut(&digest.text, text_bytes);
    let mut attributes = attributes::digest(digest);
    attributes.extend((!text.is_empty()).then(|| (a::DB_QUERY_TEXT, Value::from(text))));
    attributes
}
