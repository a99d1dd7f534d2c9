/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "cli/commands.h"

int command_failed(enum secpool_error error)
{
	const char *text = err_detail()[0] ? err_detail() : err_text(error);

	fputs("secpool: ", stderr);
	for (; *text; text++)
		fputc((unsigned char)*text < ' ' || *text == 0x7f ? '?' : *text, stderr);
	fputc('\n', stderr);
	switch ((int)error) {
	case SECPOOL_E_DENIED:
	case SECPOOL_E_UNKNOWN_TENANT:
	case SECPOOL_E_QUOTA:
		return STATUS_REFUSED;
	default:
		return STATUS_FAILED;
	}
}
