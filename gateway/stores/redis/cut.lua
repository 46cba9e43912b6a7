#!lua
-- What accounts show at one instant of the journal; any cut before this one is void.
-- Specification: cut() of policies/recount.py; a property test holds the two together.
--
-- KEYS[1], KEYS[2]  the tag's cut and its journal
-- ARGV     the token of this cut (empty: none is made), how long it is good for in ms, then the
--          accounts' keys
-- answers  {id of the journal's last entry ever, entries in it, posted, held, posted, held...},
--          nil for what is not there
local call = redis.call
local last, length = '0-0', 0
local journal = redis.pcall('XINFO', 'STREAM', KEYS[2])
if not journal.err then
  for i = 1, #journal, 2 do
    if journal[i] == 'last-generated-id' then last = journal[i + 1] end
    if journal[i] == 'length' then length = journal[i + 1] end
  end
end
local answer = {last, length}
for i = 3, #ARGV do
  local balance = call('HMGET', ARGV[i], 'posted', 'held')
  answer[2 * i - 3], answer[2 * i - 2] = balance[1], balance[2]
end
if ARGV[1] ~= '' then call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return answer
