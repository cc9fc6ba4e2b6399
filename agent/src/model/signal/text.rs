//! All text of a record that came from outside.

use std::sync::Arc;

use super::{Record, Signal};
use crate::model::Digest;

/// Where a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TextField {
    /// Database or schema.
    Database,
    /// Database user.
    User,
    /// What a client calls itself.
    Application,
    /// A statement: normalised text, summary, operation and table together.
    Statement,
    /// A plan without literals.
    Plan,
    /// A wait class or event.
    Wait,
    /// A table, column, lock mode or plan node.
    Object,
    /// A value of an attribute of a server's own number.
    Attribute,
}

impl TextField {
    /// Its name in metrics and in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            TextField::Database => "database",
            TextField::User => "user",
            TextField::Application => "application",
            TextField::Statement => "statement",
            TextField::Plan => "plan",
            TextField::Wait => "wait",
            TextField::Object => "object",
            TextField::Attribute => "attribute",
        }
    }

    /// All of them.
    pub const ALL: [TextField; 8] = [
        TextField::Database,
        TextField::User,
        TextField::Application,
        TextField::Statement,
        TextField::Plan,
        TextField::Wait,
        TextField::Object,
        TextField::Attribute,
    ];
}

/// A text that can be exchanged.
#[derive(Debug)]
pub enum TextMut<'a> {
    /// A single text.
    Text(&'a mut Arc<str>),
    /// The texts of a statement.
    Digest(&'a mut Arc<Digest>),
}

impl Record {
    /// Shows each text that came from outside. The text of a plan as the server wrote it is not among them: it is sealed, and no exporter can read it.
    pub fn texts(&mut self, see: &mut impl FnMut(TextField, TextMut<'_>)) {
        let mut text = |field, text: &mut Arc<str>| see(field, TextMut::Text(text));
        let origin = &mut self.origin;
        origin.database.iter_mut().for_each(|database| text(TextField::Database, database));
        origin.user.iter_mut().for_each(|user| text(TextField::User, user));
        match &mut self.signal {
            Signal::Interval(interval) => see(TextField::Statement, TextMut::Digest(&mut interval.digest)),
            Signal::Execution(execution) => {
                execution.application.iter_mut().for_each(|name| text(TextField::Application, name));
                see(TextField::Statement, TextMut::Digest(&mut execution.digest));
            }
            Signal::Plan(plan) => {
                plan.masked.iter_mut().for_each(|masked| text(TextField::Plan, masked));
                plan.facts.iter_mut().for_each(|facts| text(TextField::Object, &mut facts.operation));
                see(TextField::Statement, TextMut::Digest(&mut plan.digest));
            }
            Signal::Activity(activity) => {
                activity.application.iter_mut().for_each(|name| text(TextField::Application, name));
                if let Some(wait) = &mut activity.wait {
                    text(TextField::Wait, &mut wait.class);
                    text(TextField::Wait, &mut wait.event);
                }
                activity.digest.iter_mut().for_each(|digest| see(TextField::Statement, TextMut::Digest(digest)));
            }
            Signal::Blocking(blocking) => {
                blocking.lock.iter_mut().for_each(|lock| text(TextField::Object, lock));
                blocking.relation.iter_mut().for_each(|relation| text(TextField::Object, relation));
                let digests = blocking.blocked_digest.iter_mut().chain(&mut blocking.blocker_digest);
                digests.for_each(|digest| see(TextField::Statement, TextMut::Digest(digest)));
            }
            Signal::Fact(fact) => fact.attributes.iter_mut().for_each(|(_, value)| text(TextField::Attribute, value)),
            Signal::Finding(finding) => {
                finding.objects.iter_mut().for_each(|object| text(TextField::Object, object));
                finding.digest.iter_mut().for_each(|digest| see(TextField::Statement, TextMut::Digest(digest)));
            }
        }
    }
}
