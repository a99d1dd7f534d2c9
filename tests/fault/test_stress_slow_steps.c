/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stress of test_stress.c with workers that dawdle where two bugs were: between a page's step and the end of its write protection (a write was lost
 * when the page was evicted and came back in between), and before a page is taken to be filled (a thread was never woken when
 * a copy was struck from it in between). timeout: 180
 */
#include <time.h>

#include "lib/page.h"
#include "lib/uffd.h"

#define STRESS_SECONDS 20

bool __real_page_step(struct page *page, uint64_t *seen, enum page_event event, unsigned copies,
	uint64_t version);
bool __wrap_page_step(struct page *page, uint64_t *seen, enum page_event event, unsigned copies,
	uint64_t version);
enum secpool_error __real_uffd_unprotect(const struct uffd *uffd, void *start, size_t bytes);
enum secpool_error __wrap_uffd_unprotect(const struct uffd *uffd, void *start, size_t bytes);

static void dawdle(void)
{
	static _Atomic unsigned turn;
	struct timespec some = {.tv_nsec = 300 * 1000};

	if (turn++ % 16 == 0)
		nanosleep(&some, NULL);
}

bool __wrap_page_step(
	struct page *page, uint64_t *seen, enum page_event event, unsigned copies, uint64_t version)
{
	if (event == PAGE_FILL_BEGIN)
		dawdle();
	return __real_page_step(page, seen, event, copies, version);
}

enum secpool_error __wrap_uffd_unprotect(const struct uffd *uffd, void *start, size_t bytes)
{
	dawdle();
	return __real_uffd_unprotect(uffd, start, bytes);
}

#include "tests/fault/test_stress.c"
