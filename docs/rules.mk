# SPDX-License-Identifier: Apache-2.0
# man pages from docs/man/NAME.SECTION.scd
DOC_PAGES := $(patsubst docs/man/%.scd,$(B)/man/%,$(sort $(wildcard docs/man/*.scd)))
$(B)/man/%: docs/man/%.scd
	@mkdir -p $(@D)
	$(call say,SCDOC,$@)scdoc < $< > $@
docs: $(DOC_PAGES)
.PHONY: docs
