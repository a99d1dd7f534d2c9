/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions under test and their model: making and releasing them, checking what was read of a block, judging what could not be read.
 * Threads: the client's; a block's model belongs to who holds the block (region_hold), a slot's region to who holds its lock.
 */
#ifndef SECPOOL_TESTS_TORTURE_REGION_H
#define SECPOOL_TESTS_TORTURE_REGION_H

#include "tests/torture/client.h"

/* The kind of a client's slot. */
const struct region_kind *region_kind_of(uint64_t seed, unsigned client, unsigned slot);

/* Makes the slot's region, unless it was tried a moment ago. The lock is held alone. False: there is none now, which is no finding while devices or daemons are away. */
bool region_make(struct client *client, struct slot *slot);

/* Releases it. The lock is held alone. */
void region_release(struct client *client, struct slot *slot);

/* Takes the block, or says that somebody has it. */
bool region_hold(struct slot *slot, size_t block);
void region_let_go(struct slot *slot, size_t block);

struct pattern_block region_expected(const struct slot *slot, size_t block);

/* Bytes of a block were read: they are compared with the model, counted, and said when they are not right. `how` says by what they were read. */
void region_check(struct client *client, struct slot *slot, size_t block, const void *bytes, const char *how);

/* The same for bytes that belong to no region's block. */
void region_check_bytes(struct client *client, const struct pattern_block *expected, const void *bytes, const char *how);

/* A block could not be read or written (SIGBUS, SECPOOL_E_LOST, EFAULT): that must have been told, and must be more than the redundancy covers. The block counts as lost from then on. */
void region_mourn(struct client *client, struct slot *slot, size_t block, const char *how);

/* Waits until an event told that the address is lost; *ret_cause why. */
bool region_told_lost(struct client *client, uintptr_t address, enum secpool_cause *ret_cause);

/* A call gave an error that it should not have given: said, and counted. */
void region_strange(struct client *client, const struct slot *slot, const char *call, enum secpool_error error);

#endif
