//! Attendance terminals.
