/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A descriptor table for the library's own threads, so that a program which closes all descriptors, or daemonises, neither harms them
 * nor is held up by copies that they keep. Threads: called by one thread, whose later children share its table.
 */
#ifndef SECPOOL_DESCRIPTORS_H
#define SECPOOL_DESCRIPTORS_H

#include "lib/base/err.h"

enum { DESCRIPTORS_MOST = 4 };

/*
 * Gives the calling thread a table of its own that holds only the `count` (1 to DESCRIPTORS_MOST) descriptors that `fds` point to, all above 2; 0 to 2 are /dev/null there, so that no
 * descriptor of ours is ever taken for standard output. The program closes its own copies as it likes.
 * With a sanitizer's runtime 0 to 2 stay, for that is where it reports; ThreadSanitizer knows descriptors by their number alone and would take two tables for
 * one, so there the table stays shared and the descriptors become duplicates.
 */
enum secpool_error descriptors_own(int *const *fds, unsigned count) MUST_USE;

#endif
