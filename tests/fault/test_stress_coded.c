/* SPDX-License-Identifier: Apache-2.0 */
/* The stress of test_stress.c on a region with an erasure code: three data lanes and two of parity, two devices pulled at once. timeout: 180 */
#define STRESS_DATA    3
#define STRESS_PARITY  2
#define STRESS_SECONDS 30

#include "tests/fault/test_stress.c"
