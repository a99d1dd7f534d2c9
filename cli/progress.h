/* SPDX-License-Identifier: Apache-2.0 */
/* How far something is, as text. Threads: any; no state. */
#ifndef SECPOOL_CLI_PROGRESS_H
#define SECPOOL_CLI_PROGRESS_H

#include "lib/wire/msg.h"

enum { PROGRESS_CELLS = 24, PROGRESS_BYTES = PROGRESS_CELLS + 24 };

/* "[#####.....]  42 %", at most 100; "" where there is nothing to do. */
const char *progress_bar(uint64_t done, uint64_t all, char text[PROGRESS_BYTES]);

/* What goes on on a device: "drain 42 %", "scrub 7 %", or "". */
const char *progress_text(const struct msg_use_row *use, char text[PROGRESS_BYTES]);

#endif
