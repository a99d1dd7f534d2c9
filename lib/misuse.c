/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/misuse.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* Protects: kept, next */
static void *kept[MISUSE_KEPT];
static unsigned next;

void misuse_end(const char *format, ...)
{
	char text[ERR_DETAIL_BYTES];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	dprintf(STDERR_FILENO, "secpool: %s\n", text);
	/* lint: abort: see misuse.h */
	abort();
}

void misuse_retire(void *handle, size_t bytes)
{
	memset(handle, 0, bytes);
	pthread_mutex_lock(&lock);
	free(kept[next]);
	kept[next] = handle;
	next = (next + 1) % MISUSE_KEPT;
	pthread_mutex_unlock(&lock);
}
