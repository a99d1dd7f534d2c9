/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/policy.h"

extern const char policy_default_begin[], policy_default_end[];

__asm__(".pushsection .rodata\n"
	".hidden policy_default_begin, policy_default_end\n"
	".globl policy_default_begin, policy_default_end\n"
	"policy_default_begin:\n"
	"	.incbin \"policy/default.yaml\"\n"
	"policy_default_end:\n"
	".popsection\n");

const char *policy_default(size_t *ret_bytes)
{
	*ret_bytes = (size_t)(policy_default_end - policy_default_begin);
	return policy_default_begin;
}
