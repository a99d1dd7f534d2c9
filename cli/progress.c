/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>

static unsigned share_of(unsigned parts, uint64_t done, uint64_t all)
{
	double share = all ? (double)done / (double)all : 0;

	return (unsigned)((share > 1 ? 1 : share) * parts);
}

const char *progress_bar(uint64_t done, uint64_t all, char text[PROGRESS_BYTES])
{
	unsigned cells = share_of(PROGRESS_CELLS, done, all);
	char bar[PROGRESS_CELLS + 1];

	if (all == 0)
		return "";
	memset(bar, '.', PROGRESS_CELLS);
	memset(bar, '#', cells);
	bar[PROGRESS_CELLS] = '\0';
	snprintf(text, PROGRESS_BYTES, "[%s] %3u %%", bar, share_of(100, done, all));
	return text;
}

const char *progress_text(const struct msg_use_row *use, char text[PROGRESS_BYTES])
{
	if (use->drain_bytes > 0)
		snprintf(text, PROGRESS_BYTES, "drain %u %%",
			share_of(100, use->drain_done_bytes, use->drain_bytes));
	else if (use->scrub_bytes > 0)
		snprintf(text, PROGRESS_BYTES, "scrub %u %%",
			share_of(100, use->scrub_done_bytes, use->scrub_bytes));
	else
		return "";
	return text;
}
