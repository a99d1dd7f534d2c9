/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations of the torture's threads. Which operation a thread does as its n-th, on what, follows from the seed, the client, its incarnation, the thread and n alone; where
 * somebody else has the block, or the region is not there, it is passed over.
 */
#ifndef SECPOOL_TESTS_TORTURE_WORK_H
#define SECPOOL_TESTS_TORTURE_WORK_H

#include "tests/torture/client.h"

/* The name of an operation; NULL: there is none of that number. */
const char *work_name(uint32_t operation);

/* The thread: works until the board says stop. Its argument is a struct worker_thread. */
void *work_main(void *thread);

/* The main thread's operations. Marks them in its seat; `heal`: writes each page of all regions anew. */
enum { WORK_OPEN = 100, WORK_SETTLE = 101, WORK_HEAL = 102, WORK_VERIFY = 103, WORK_CLOSE = 104, WORK_RECREATE = 105 };
void work_heal(struct client *client);
void work_verify(struct client *client);
void work_recreate(struct client *client);

/* The heap's objects (heap.c). */
struct heap_model *heap_model_new(void);
void heap_model_work(struct client *client, uint64_t dice);

#endif
