/* SPDX-License-Identifier: Apache-2.0 */
/* test_silent.c in fault mode inline: threads that serve their own faults meet the device. timeout: 300 */
#define SILENT_MODE SECPOOL_FAULT_INLINE

#include "tests/fault/test_silent.c"
