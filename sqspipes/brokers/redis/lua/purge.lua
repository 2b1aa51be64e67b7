-- Puts an empty queue, which knows the old deduplication ids, in the place of one. ARGV[3]: its id.
-- Returns nil if there is no such queue.
local queue = find(name)
if not queue then
  return false
end
local row = ARGV[3] .. ' ' .. queue.origin .. ' ' .. queue.most .. ' ' .. queue.dead
drop(queue)
call('HSET', prefix .. ':queues', name, row)
return 1
