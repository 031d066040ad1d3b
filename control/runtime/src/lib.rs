//! How a program follows the API: shared informers, work queue, driver, leader election, test kit.
