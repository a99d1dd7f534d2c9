/* SPDX-License-Identifier: Apache-2.0 */
/* The first bytes of a file that `secpool run` is to start. */
#include <stdlib.h>
#include <string.h>

#include "cli/program.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char interpreter[PATH_MAX];

	if (size > PROGRAM_HEAD_BYTES)
		size = PROGRAM_HEAD_BYTES;
	memset(interpreter, 'x', sizeof interpreter);
	if (program_look(data, size, interpreter) == PROGRAM_SCRIPT &&
		(strnlen(interpreter, sizeof interpreter) == sizeof interpreter || !*interpreter))
		abort();
	return 0;
}
