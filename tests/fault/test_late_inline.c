/* SPDX-License-Identifier: Apache-2.0 */
/* test_late.c in fault mode inline: threads that serve their own faults meet the device. timeout: 300 */
#define LATE_MODE SECPOOL_FAULT_INLINE

#include "tests/fault/test_late.c"
