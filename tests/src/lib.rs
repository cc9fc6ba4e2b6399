//! Real servers, load, oracles and recorded streams for the tests of the agent.

pub mod stream;
