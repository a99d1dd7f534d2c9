/* SPDX-License-Identifier: Apache-2.0 */
/* The stress of test_stress.c in fault mode inline: more threads than guests' places. timeout: 180 */
#define STRESS_MODE    SECPOOL_FAULT_INLINE
#define STRESS_SECONDS 40

#include "tests/fault/test_stress.c"
