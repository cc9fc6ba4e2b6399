//! Capture files: whatever the bytes, a replay ends, and what it says of statements holds together.
#![no_main]

use libfuzzer_sys::fuzz_target;
use querylens::replay::{Choice, profile::Profile, replay};

fuzz_target!(|file: &[u8]| {
    let mut profile = Profile::new(true);
    let mut executions = 0u64;
    let coverage = replay(file, &Choice::default(), &mut |execution| {
        executions += 1;
        let statement = execution.statement;
        assert!(statement.start <= statement.end);
        assert!(statement.first_byte.is_none_or(|first| first <= statement.end));
        profile.add(execution);
        Ok(())
    });
    if let Ok(coverage) = coverage {
        assert!(coverage.packets > 0 || executions == 0);
        let _ = (coverage.troubles(), coverage.left_alone());
    }
});
